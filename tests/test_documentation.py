"""The README and `docs/`: their numbers are those of the code, their links exist, their API reference is complete."""

import ast
import json
import re
import textwrap
from pathlib import Path

import jax
import numpy as np
import other_environments
import pytest
import scaling
from csv_files import rows_of
from shared import variants
from shared.seeds import markdown

import jaxdqn
from jaxdqn.cli.commands import COMMANDS
from jaxdqn.networks.architectures import make_network
from jaxdqn.presets import PRESETS
from jaxdqn.pretrained import FOLDER, PRETRAINED

ROOT = Path(__file__).parent.parent
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]}
LINKED = {**PAGES, **{name: (ROOT / name).read_text() for name in ("CONTRIBUTING.md", "CHANGELOG.md")}}


def test_the_readme_and_the_examples_are_short():
    assert len(PAGES["README.md"].splitlines()) <= 150
    examples = list(ROOT.glob("examples/*.py"))
    assert len(examples) >= 3
    assert all(len(path.read_text().splitlines()) <= 60 for path in examples)


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_compile(page):
    for block in re.findall(r"```python\n(.*?)^ *```", PAGES[page], re.DOTALL | re.MULTILINE):
        if "--8<--" not in block:  # the text of a file, which has tests of its own
            ast.parse(textwrap.dedent(block))


@pytest.mark.parametrize("page", LINKED)
def test_links_to_files_of_the_repository_exist(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", LINKED[page]):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).is_file(), target


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_backticks_exist(page):
    for path in re.findall(r"`(?:python3 )?((?:experiments|examples|tests|docs)/[\w/]+\.\w+)", PAGES[page]):
        assert (ROOT / path).is_file(), path


def test_snippets_show_lines_that_exist():
    for page, text in PAGES.items():
        for path, first, last in re.findall(r'--8<-- "([\w/.]+)(?::(\d+):(\d+))?"', text):
            lines = (ROOT / path).read_text().splitlines()
            assert lines, page
            if first:
                shown = lines[int(first) - 1 : int(last)]
                assert re.match(r"(class|def) ", shown[0]), (page, shown[0])
                assert int(last) >= len(lines) or not lines[int(last)].strip() or not shown[-1].strip(), (
                    page,
                    shown[-1],
                )
                ast.parse("\n".join(shown))


def test_every_public_name_is_in_the_api_reference_once():
    listed = re.findall(r"^::: (jaxdqn[\w.]+)$", "\n".join(PAGES.values()), re.MULTILINE)
    assert sorted(path.rsplit(".", 1)[-1] for path in listed) == sorted(set(jaxdqn.__all__) - {"__version__"})
    for path in listed:
        module, _, name = path.rpartition(".")
        assert getattr(__import__(module, fromlist=[name]), name) is getattr(jaxdqn, name)


def test_every_public_name_has_a_docstring():
    for name in jaxdqn.__all__:
        if name not in ("ALGORITHMS", "Objective", "PRESETS", "__version__"):
            assert len(getattr(jaxdqn, name).__doc__ or "") > 20, name


def test_the_architecture_page_names_every_module():
    package, page = ROOT / "jaxdqn", PAGES["docs/architecture.md"]
    for path in package.rglob("*.py"):
        known = f"`{path.name}`" in page and (path.parent == package or f"`{path.parent.name}/`" in page)
        assert path.name.startswith("__") or known, f"docs/architecture.md does not name {path.relative_to(package)}"
    for name in re.findall(r"`([a-z_]+\.py)`", page):
        assert list(package.rglob(name)), f"docs/architecture.md names {name}, which does not exist"


def test_the_command_line_page_lists_the_commands():
    assert set(re.findall(r"^\| `jaxdqn (\w+)", PAGES["docs/command-line.md"], re.MULTILINE)) == set(COMMANDS)


def test_the_tables_of_cartpole_are_its_results():
    for name in ("cartpole", "cartpole_host"):
        assert markdown(rows_of(f"{name}_table")) in PAGES["docs/results.md"]
        for row in rows_of(name):
            assert results_line(row) in PAGES["docs/results.md"].splitlines()


def test_the_table_of_agents_is_that_of_their_files():
    for name in PRETRAINED:
        facts = json.loads((FOLDER / f"{name}.json").read_text())
        mean, ends = f"{facts['mean']} ± {facts['standard_error']}", f"{facts['min']:g}, {facts['max']:g}"
        line = f"| `{name}` | `{facts['command']}` | {mean} | {facts['median']} | {ends} |"
        assert line in PAGES["docs/results.md"].splitlines()


def results_line(row):
    """A seed's line of the table in docs/results.md."""
    agents = [
        f"{row[f'{which}_mean']} ± {row[f'{which}_standard_error']}, at least {float(row[f'{which}_min']):g}"
        for which in ("best", "last")
    ]
    if row["best_frames"] == row["last_frames"]:
        agents[1] = "the same"
    solved = row["solved_frames"]
    first = f"{int(solved):,} frames, {row['solved_seconds']} s" if solved else "never"
    return f"| {' | '.join([row['seed'], first, row['last_evaluation_seconds'] + ' s', *agents])} |"


def test_sizes_of_networks_are_those_of_the_code():
    for preset, size, page in (("torchrl", "1,262,691", "torchrl"), ("cartpole", "65,043", "default-preset")):
        config = PRESETS[preset]
        images = np.zeros((1, 64, 64, config.frame_stack), np.float32)
        shapes = jax.eval_shape(make_network(config, 2).init, jax.random.key(0), images)
        assert f"{sum(x.size for x in jax.tree.leaves(shapes)):,}" == size
        assert size in PAGES[f"docs/{page}.md"]


def test_the_table_of_n_step_ends_is_its_results():
    found = [{**row, "frames": int(row["frames"]), "mean": float(row["mean"])} for row in rows_of("n_step_ends")]
    for line in variants.table(found, list(dict.fromkeys(row["variant"] for row in found))).splitlines():
        assert line in PAGES["docs/results.md"]


def test_the_table_of_other_environments_is_their_results():
    rows = rows_of("other_environments")
    numbers = [{**row, **{name: float(row[name]) for name in ("mean", "standard_error", "seconds")}} for row in rows]
    found = [{**row, "seed": int(row["seed"])} for row in numbers]
    for line in other_environments.table(other_environments.TASKS, found).splitlines():
        assert line in PAGES["docs/results.md"]


@pytest.mark.parametrize("name", ["algorithm_costs", "algorithms_cartpole_table", "algorithms_breakout_table"])
def test_tables_of_the_family_are_their_results(name):
    assert markdown(rows_of(name)) in PAGES["docs/results.md"]


@pytest.mark.slow
def test_the_table_of_links_is_the_arithmetic_of_the_code():
    assert scaling.table() == rows_of("scaling")
    assert markdown(rows_of("scaling")) in PAGES["docs/distributed.md"]
