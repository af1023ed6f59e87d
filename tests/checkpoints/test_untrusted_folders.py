"""Untrusted run folders run no code and read no files outside, and a lock keeps two processes out of one folder."""

import json
import multiprocessing
import sys

import gymnasium as gym
import pytest
from stopped_runs import config_in, finish, quiet

import jaxdqn
from jaxdqn.cli.main import main
from jaxdqn.resume_command import env_flags, resume_hint
from jaxdqn.storage import checksums
from jaxdqn.training.run_dir import LOCK, locked

MODULE = """
import pathlib
pathlib.Path({mark!r}).touch()
import gymnasium as gym
if "Theirs-v0" not in gym.registry:
    gym.register("Theirs-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=20)
"""


@pytest.fixture
def strange_run(tmp_path, monkeypatch):
    """Make a run whose config names an environment that imports a module, which creates the file `imported`."""
    run = tmp_path / "run"
    with jaxdqn.train(config_in(run, checkpoint_every=32)) as steps:
        while next(steps).progress.frames < 64:
            pass
    path = run / "config.json"
    path.write_text(path.read_text().replace('"CartPole-v1"', '"their_module:Theirs-v0"'))
    for state in (run / "states").iterdir():
        checksums.amend(
            state, {"config": {**checksums.read_manifest(state)["config"], "env": "their_module:Theirs-v0"}}
        )
    (tmp_path / "their_module.py").write_text(MODULE.format(mark=str(tmp_path / "imported")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield run
    sys.modules.pop("their_module", None)
    gym.registry.pop("Theirs-v0", None)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["evaluate run --checkpoint last", "play run --checkpoint last", "resume run"])
def test_module_named_by_a_config_is_not_imported_unless_the_user_names_it(words, strange_run, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.count("\n") == 1
    assert "pass --env their_module:Theirs-v0 if you trust it" in said
    assert not (tmp_path / "imported").exists()


@pytest.mark.slow
def test_module_is_imported_if_the_user_names_it_as_in_the_printed_command(strange_run, tmp_path, capsys):
    assert "run --env their_module:Theirs-v0` resumes from frame 64" in resume_hint(strange_run)
    assert env_flags(strange_run, played=True) == " --env their_module:Theirs-v0"
    with pytest.raises(ValueError, match="env 'CartPole-v1' is not the run's, which is 'their_module:Theirs-v0'"):
        next(jaxdqn.resume(strange_run, env="CartPole-v1"))
    assert not (tmp_path / "imported").exists()
    finish(jaxdqn.resume(strange_run, env="their_module:Theirs-v0", say=quiet))
    assert (tmp_path / "imported").exists()
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "run", "--episodes", "1", "--env", "CartPole-v1", "--json"])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["episodes"] == 1


@pytest.fixture
def sealed(tmp_path):
    with checksums.sealed_folder(tmp_path / "sealed", {}) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "a").write_text("a")
    return tmp_path / "sealed"


@pytest.mark.parametrize(
    "name", ["../outside", "inner/../../outside", "/etc/passwd", "..", "C:/outside", "..\\outside"]
)
def test_manifest_that_lists_a_file_outside_its_folder_is_refused(name, sealed, monkeypatch):
    (sealed.parent / "outside").write_text("a")
    entry = checksums.read_manifest(sealed)["files"]["inner/a"]
    checksums.amend(sealed, {"files": {"inner/a": entry, name: entry}})
    monkeypatch.setattr(checksums, "_entry", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(checksums.DamagedError, match="outside its folder"):
        checksums.check_folder(sealed)


def test_link_out_of_the_folder_is_refused(sealed):
    (sealed.parent / "outside").write_text("a")
    (sealed / "inner" / "a").unlink()
    (sealed / "inner" / "a").symlink_to(sealed.parent / "outside")
    with pytest.raises(checksums.DamagedError, match="is a symbolic link"):
        checksums.check_folder(sealed)


def test_unlisted_file_is_refused_but_not_a_partial_manifest(sealed):
    (sealed / "manifest.json.partial").touch()
    checksums.check_folder(sealed)
    (sealed / "inner" / "b").touch()
    with pytest.raises(checksums.DamagedError, match=r"inner/b is not in the manifest"):
        checksums.check_folder(sealed)


@pytest.mark.parametrize("files", [None, [], {"inner/a": 3}, {"inner/a": {}}])
def test_manifest_without_a_valid_list_of_files_is_refused(files, sealed):
    checksums.amend(sealed, {"files": files})
    with pytest.raises(checksums.DamagedError, match="manifest"):
        checksums.check_folder(sealed)


def lock(folder, answer):
    try:
        with locked(folder):
            answer.put("locked")
    except ValueError as error:
        answer.put(str(error))


def test_folder_is_locked_for_all_processes_until_the_block_ends(tmp_path):
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()

    def other():
        process = context.Process(target=lock, args=(tmp_path, answer))
        process.start()
        process.join()
        return answer.get()

    with locked(tmp_path):
        with pytest.raises(ValueError, match="is being trained by this process"), locked(tmp_path):
            pass
        assert "is being trained by another process" in other()  # the failed attempt did not release the lock
    assert other() == "locked"
    assert (tmp_path / LOCK).stat().st_size == 0
