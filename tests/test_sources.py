"""Every figure of the README and the pages has a command, a file, a date and a short test (`sources.toml`)."""

import ast
import datetime
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from test_documentation import PAGES, ROOT

SOURCES = tomllib.loads((ROOT / "experiments" / "results" / "sources.toml").read_text())
DRAWINGS = {"docs/images/flow.svg"}
"""Pictures that show no result."""


def paragraphs(text):
    """The paragraphs of a page, each as one line."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]


def test_every_result_and_picture_has_one_source():
    listed = [name for entry in SOURCES.values() for name in entry["files"]]
    assert len(listed) == len(set(listed))
    results = [path for path in (ROOT / "experiments" / "results").iterdir() if path.suffix != ".toml"]
    found = {str(path.relative_to(ROOT)) for path in [*results, *(ROOT / "docs" / "images").iterdir()]}
    found |= {str(path.relative_to(ROOT)) for path in (ROOT / "jaxdqn" / "pretrained").glob("*.json")}
    assert set(listed) == found - DRAWINGS


@pytest.mark.parametrize("name", SOURCES)
def test_each_source_has_a_date_and_a_test_of_its_command(name):
    entry = SOURCES[name]
    assert entry.keys() == {"command", "date", "files", "pages", "test"}
    assert type(entry["date"]) is datetime.date
    assert entry["date"] <= datetime.datetime.now(datetime.UTC).date()
    words = shlex.split(entry["command"])
    script = next((Path(word).stem for word in words if word.endswith(".py")), words[1])
    path, _, function = entry["test"].partition("::")
    source = (ROOT / path).read_text()
    found = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == function]
    assert len(found) == 1
    with_marks = ast.unparse(found[0])
    assert f"'{script}'" in with_marks or f'"{script}"' in with_marks


@pytest.mark.parametrize("name", SOURCES)
def test_pages_show_the_command_the_date_and_the_files(name):
    entry = SOURCES[name]
    wanted = [f"`{entry['command']}`", entry["date"].isoformat()]
    wanted += [f"`{file}`" for file in entry["files"] if not file.startswith("docs/images/")]
    for page in entry["pages"]:
        assert any(all(word in part for word in wanted) for part in paragraphs(PAGES[page])), (page, wanted)


def test_pictures_are_shown_on_a_page():
    for entry in SOURCES.values():
        for file in entry["files"]:
            if file.startswith("docs/images/"):
                name = file.removeprefix("docs/images/")
                assert any(f"images/{name})" in text for text in PAGES.values()), file
