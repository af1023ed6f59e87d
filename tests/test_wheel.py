"""The wheel: what an installation without the repository contains."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from jaxdqn.pretrained import PRETRAINED

ROOT = Path(__file__).parents[1]
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")))))


def test_the_wheel_has_the_package_with_its_agents_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for name in PRETRAINED:
        assert {f"jaxdqn/pretrained/{name}.json", f"jaxdqn/pretrained/{name}.npz"} <= set(names)
    assert {"jaxdqn/py.typed", "jaxdqn/__init__.pyi"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"jaxdqn"}  # and jaxdqn-VERSION.dist-info
    assert wheel.stat().st_size < 15 * MEGABYTE


def test_an_installed_package_loads_its_agents(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import jaxdqn; print(jaxdqn.__file__)\n"
        "for name in sys.argv[2:]: print(jaxdqn.load_pretrained(name).config.env)"
    )
    words = [sys.executable, "-c", code, str(tmp_path), *PRETRAINED]
    lines = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()
    assert Path(lines[0]).is_relative_to(tmp_path)
    assert lines[1:] == ["CartPole-v1", "jaxdqn/Ball-v0"]
