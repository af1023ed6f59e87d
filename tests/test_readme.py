"""The README's examples run, and its numbers are the code's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_example_with_the_pieces_runs(tmp_path):
    script = tmp_path / "example.py"
    script.write_text(BLOCKS[0])
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    returns = [float(line.split()[1]) for line in done.stdout.splitlines()[:-1]]
    assert len(returns) > 10
    assert min(returns) >= 8


def test_every_example_is_python():
    for block in BLOCKS:
        compile(block, "README.md", "exec")
    assert len(BLOCKS) == 3


def test_the_layout_names_every_module():
    package = Path(__file__).parent.parent / "jaxdqn"
    for path in package.rglob("*.py"):
        name = str(path.relative_to(package))
        known = name in README or (name.startswith("envs/") and "envs/" in README)
        assert path.name == "__init__.py" or known, f"the README's layout does not name {name}"


def test_nothing_is_left_to_fill_in_and_every_picture_is_there():
    assert not re.findall(r"\b[A-Z]+_TABLE\b|^[A-Z_]{6,}$", README, re.MULTILINE)
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert len(pictures) >= 2
    for picture in pictures:
        assert (Path(__file__).parent.parent / picture).stat().st_size > 10_000


def test_commands_in_the_readme_exist():
    from jaxdqn.cli import COMMANDS

    named = set(re.findall(r"^\| `jaxdqn (\w+)", README, re.MULTILINE))
    assert named == set(COMMANDS)
