"""A run that does not fit in memory is refused before it begins, with the capacity that would fit."""

import dataclasses
import json

import numpy as np
import probes
import pytest
from running import set_free_memory
from small_runs import HOST

import jaxdqn
from jaxdqn.cli.main import main
from jaxdqn.replay.capacity import row_bytes

ROW = row_bytes((2,), np.float32)


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["remembered", pytest.param("own", marks=pytest.mark.makes_agents)])
def agents(request):
    """Run a test with agents that the suite caches, and with agents that runs make themselves."""


ON_DEVICE = {"loop": "device", "env": "jaxdqn/Ball-v0", "pixels": True, "frame_size": 44}


@pytest.mark.parametrize(
    ("fields", "how"),
    [
        ({}, {"env_fn": probes.Delayed}),
        ({"replay_storage": "host"}, {"env_fn": probes.Delayed}),
        (ON_DEVICE, {}),
    ],
    ids=["device", "host", "device loop"],
)
def test_replay_larger_than_free_memory_is_refused(agents, fields, how, tmp_path, monkeypatch):
    set_free_memory(monkeypatch, 20 * ROW + 8)
    with pytest.raises(ValueError, match=r"capacity 60 needs .* bytes of replay and .* are free: "):
        list(jaxdqn.train(dataclasses.replace(HOST, **fields, output=str(tmp_path / "run")), **how))
    assert not (tmp_path / "run").exists()


def test_replay_larger_than_free_memory_is_refused_after_a_run_of_the_same_config(agents, tmp_path, monkeypatch):
    config = dataclasses.replace(HOST, output=str(tmp_path / "run"))
    set_free_memory(monkeypatch, 60 * ROW + 8)
    *_, end = jaxdqn.train(config, env_fn=probes.Delayed)
    assert end.progress.frames == 60
    set_free_memory(monkeypatch, 59 * ROW + 8)
    with pytest.raises(ValueError, match=r"capacity 60 needs .* the largest that fits is 58"):
        list(jaxdqn.train(dataclasses.replace(config, output=str(tmp_path / "other")), env_fn=probes.Delayed))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_resume_with_too_little_memory_changes_no_file(agents, tmp_path, monkeypatch):
    config = dataclasses.replace(HOST, output=str(tmp_path / "run"))
    with jaxdqn.train(config, env_fn=probes.Delayed) as run:
        for step in run:
            if step.progress.frames == 40:
                break
    before = files_of(tmp_path)
    with monkeypatch.context() as patch:
        set_free_memory(patch, 20 * ROW + 8)
        with pytest.raises(ValueError, match="capacity 60 needs"):
            list(jaxdqn.resume(tmp_path / "run", env_fn=probes.Delayed))
    assert files_of(tmp_path) == before
    *_, end = jaxdqn.resume(tmp_path / "run", env_fn=probes.Delayed, say=lambda note: None)
    assert end.progress.frames == 60


@pytest.mark.makes_agents
def test_too_little_memory_is_one_line_on_the_command_line(tmp_path, monkeypatch, capsys):
    set_free_memory(monkeypatch, 8)
    words = ["train", "--no-pixels", "--capacity", "2000", "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match="2"):
        main(words)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("jaxdqn: capacity 2000 needs")
    assert line.endswith("free some memory")
    assert not (tmp_path / "run").exists()


@pytest.mark.makes_agents
@pytest.mark.slow
def test_the_default_capacity_fills_half_of_free_memory(tmp_path, monkeypatch):
    set_free_memory(monkeypatch, 100 * ROW + 8)
    config = dataclasses.replace(HOST, capacity=None, output=str(tmp_path / "run"))
    *_, end = jaxdqn.train(config, env_fn=probes.Delayed)
    assert end.progress.state.replay.rows.action.shape == (25, 2)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["capacity"] == 50
