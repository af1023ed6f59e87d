"""Run folders with correct digests but invalid content: one line, exit code 2, nothing changed."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import probes
import pytest
from running import command
from small_runs import HOST

import jaxdqn
from jaxdqn.checkpoints.agent_files import Checkpoints
from jaxdqn.storage import checksums
from jaxdqn.training.run_dir import locked

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("strangers") / "base"
    config = dataclasses.replace(HOST, env="CartPole-v1", checkpoint_every=20, total_frames=60, output=str(run))
    with jaxdqn.train(config, say=lambda note: None) as steps:
        while next(steps).progress.frames < 40:
            pass
    return run


@pytest.fixture
def run(a_run, tmp_path):
    shutil.copytree(a_run, tmp_path / "run")
    return tmp_path / "run"


def newest(run):
    return max((run / "states").iterdir())


def drop(folder, name):
    body = checksums.read_manifest(folder)
    del body[name]
    rewrite(folder, body)


def rewrite(folder, body):
    (folder / "manifest.json").write_text(json.dumps({**body, "sha256": checksums._digest_of(body)}))


def refused(run, capsys, *words):
    for state in sorted((run / "states").iterdir())[:-1]:
        shutil.rmtree(state)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert command(*words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    return said


STATE = ["format", "frames", "processes", "cursor", "size", "replay", "leaves", "rest"]
ABOUT = ["config", "versions", "index", "log", "evaluation_due"]


@pytest.mark.parametrize("name", [*STATE, *ABOUT])
def test_state_without_a_required_field_is_refused(name, run, capsys):
    drop(newest(run), name)
    said = refused(run, capsys, "resume", run)
    assert name in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frames", "x"),
        ("frames", -1),
        ("processes", 0),
        ("cursor", 10**9),
        ("size", 10**6),
        ("leaves", 7),
        ("index", {"last": "../../x"}),
        ("log", {"elapsed_seconds": 0, "num_episodes": 0, "episodes": [[1]], "evaluated": 0}),
        ("log", {"elapsed_seconds": "x", "num_episodes": 0, "episodes": [], "evaluated": 0}),
    ],
)
def test_state_with_an_invalid_field_is_refused(name, value, run, capsys):
    rewrite(newest(run), {**checksums.read_manifest(newest(run)), name: value})
    refused(run, capsys, "resume", run)


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_actions", 0), ("obs_shape", "abcd"), ("obs_shape", [-3]), ("obs_dtype", "O"), ("custom", 5)],
)
def test_agent_with_an_invalid_field_is_refused(name, value, run, capsys):
    agent = max((run / "checkpoints").glob("*[0-9]"))
    text = json.dumps({**json.loads((agent / "agent.json").read_text()), name: value})
    (agent / "agent.json").write_text(text)
    body = checksums.read_manifest(agent)
    digest = hashlib.sha256(text.encode()).hexdigest()
    body["files"]["agent.json"] = {"bytes": len(text.encode()), "sha256": digest}
    rewrite(agent, body)
    refused(run, capsys, "evaluate", run, "--checkpoint", "last", "--episodes", 1)


def test_invalid_versions_file_is_refused(run, capsys, tmp_path):
    (run / "versions.json").write_text('{"own": 5}')
    assert "own 5" in refused(run, capsys, "resume", run)
    assert command("plot", run, "--output", tmp_path / "curve.png") == 0


def test_users_files_among_the_agents_are_not_deleted(run):
    agent = max((run / "checkpoints").glob("*[0-9]"))
    shutil.copytree(agent, run / "checkpoints" / "keep-this-one")
    (run / "checkpoints" / "latest").symlink_to(agent.name)
    *_, end = jaxdqn.resume(run, say=lambda note: None)
    assert end.progress.frames == 60
    assert (run / "checkpoints" / "keep-this-one" / "agent.json").is_file()
    assert (run / "checkpoints" / "latest").is_symlink()


def test_agent_that_is_replaced_while_it_is_read_is_read_again(run, monkeypatch):
    read, tries = Checkpoints.params, []

    def replaced(checkpoints, which, like):
        tries.append(which)
        if len(tries) == 1:  # the run is still training: it saves another agent and deletes this one
            index = json.loads((run / "checkpoints" / "index.json").read_text())
            (run / "checkpoints" / "index.json").write_text(json.dumps({**index, "note": 1}))
            raise FileNotFoundError(2, "No such file or directory")
        return read(checkpoints, which, like)

    monkeypatch.setattr(Checkpoints, "params", replaced)
    assert jaxdqn.load(run, "last").spec.num_actions == 2
    assert len(tries) == 2
    monkeypatch.setattr(Checkpoints, "params", lambda *which: (_ for _ in ()).throw(FileNotFoundError(2, "gone")))
    with pytest.raises(FileNotFoundError):
        jaxdqn.load(run, "last")


def test_folder_stays_locked_after_its_lock_file_is_read(tmp_path):
    """Closing the lock file in the process that holds the lock must not release it."""
    lock = f"with locked(Path({str(tmp_path)!r})): pass"
    code = f"from pathlib import Path\nfrom jaxdqn.training.run_dir import locked\n{lock}"
    with locked(tmp_path):
        (tmp_path / ".lock").read_bytes()
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "is being trained by another process" in other.stderr
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "a\tb"])
def test_output_names_that_are_not_portable_are_refused(name, tmp_path, capsys):
    assert command("train", "--no-pixels", "--output", tmp_path / name) == 2
    assert "in it, which some file systems do not allow" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("output", ["", ".", "folder.png", "fifo.png"])
def test_plot_replaces_only_regular_files(output, run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    before = sorted(tmp_path.iterdir())
    assert command("plot", run, "--output", output) == 2
    assert "not a file that can be written" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "link.png").symlink_to("there.png")
    assert command("plot", run, "--output", "link.png") == 0
    assert (tmp_path / "there.png").is_file()
    assert (tmp_path / "link.png").is_symlink()


class Recording(probes.Delayed):
    """An environment that replays a list of steps, which ends."""

    def __init__(self):
        super().__init__()
        self._left = iter(range(9))

    def step(self, action):
        next(self._left)
        return super().step(action)


def test_environment_that_raises_stop_iteration_is_named(tmp_path):
    with pytest.raises(RuntimeError, match=r"env Recording raised StopIteration at frame \d+, or one of the next 1"):
        list(jaxdqn.train(dataclasses.replace(HOST, output=str(tmp_path / "run")), env_fn=Recording))


class Moving(probes.Delayed):
    """An environment that changes the current folder."""

    places: list = []  # noqa: RUF012, of one test

    def __init__(self):
        super().__init__()
        os.chdir(self.places[0])

    def reset(self, **how):
        os.chdir(self.places[1])
        return super().reset(**how)


def test_environment_that_changes_the_current_folder_does_not_move_the_run(tmp_path, monkeypatch):
    for name in ("here", "there", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Moving.places = [tmp_path / "there", tmp_path / "elsewhere"]
    *_, end = jaxdqn.train(dataclasses.replace(HOST, output="run"), env_fn=Moving, say=lambda note: None)
    assert end.folder == tmp_path / "here" / "run"
    assert {"config.json", "metrics.csv", "states", "checkpoints"} <= {path.name for path in end.folder.iterdir()}
    assert not list((tmp_path / "there").iterdir())
    assert not list((tmp_path / "elsewhere").iterdir())
    monkeypatch.chdir(tmp_path / "here")
    *_, end = jaxdqn.resume("run", total_frames=80, env_fn=Moving, say=lambda note: None)
    assert end.progress.frames == 80
    assert not list((tmp_path / "there").iterdir())
