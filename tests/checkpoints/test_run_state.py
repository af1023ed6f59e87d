"""States on disk: damaged states and states of other runs are not loaded, and what cannot be restored is reported."""

import json
import signal
import sys

import checkpoint_cost
import gymnasium as gym
import numpy as np
import probes
import pytest
from rings import flip_one_bit
from running import kill
from stopped_runs import config_in, finish, quiet, table

import jaxdqn
from jaxdqn.checkpoints import replay_files, run_manifest
from jaxdqn.checkpoints.run_state import States
from jaxdqn.signals import Stop


def newest_two(tmp_path):
    run = tmp_path / "run"
    finish(jaxdqn.train(config_in(run)), stop_after=112)
    return run, [path.name for path in States(run / "states", keep=2, with_replay=True).all()]


DAMAGES = {
    "a flipped bit": flip_one_bit,
    "a truncated file": lambda data: data[: len(data) // 2],
    "a zeroed file": lambda data: bytes(len(data)),
    "a missing file": None,
}


@pytest.mark.slow
def test_state_with_any_damaged_file_is_not_loaded(tmp_path):
    run, (older, newer) = newest_two(tmp_path)
    kept = States(run / "states", keep=2, with_replay=True)
    files = [path for path in sorted((run / "states" / newer).rglob("*")) if path.is_file() and path.stat().st_size]
    assert len(files) >= 8
    for path in files:
        whole = path.read_bytes()
        for damage in DAMAGES.values():
            path.unlink() if damage is None else path.write_bytes(damage(whole))
            found = kept.newest()
            assert found.folder.name == older
            assert len(found.notes) == 1
            assert str(path) in found.notes[0]
            path.write_bytes(whole)
    assert kept.newest().folder.name == newer
    # The run resumes from the older state, and reports it.
    files[0].write_bytes(b"")
    notes = []
    last = finish(jaxdqn.resume(run, say=notes.append))
    assert last.progress.frames == 320
    assert len(notes) == 1
    assert str(files[0]) in notes[0]
    assert older in notes[0]


@pytest.mark.slow
def test_resume_exits_with_2_if_all_states_are_damaged(tmp_path, capsys):
    from jaxdqn.cli.main import main

    run, names = newest_two(tmp_path)
    before = (run / "metrics.csv").read_bytes()
    for name in names:
        (run / "states" / name / "manifest.json").write_text("{}")
    with pytest.raises(SystemExit) as stop:
        main(["resume", str(run)])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("manifest.json") == 2
    assert said.count("\n") == 1
    assert (run / "metrics.csv").read_bytes() == before


@pytest.mark.slow
def test_damaged_agent_is_not_loaded(tmp_path):
    run, _ = newest_two(tmp_path)
    finish(jaxdqn.resume(run, say=quiet))
    jaxdqn.load(run)
    victim = max((run / "checkpoints").rglob("d/*"), key=lambda path: path.stat().st_size)
    victim.write_bytes(DAMAGES["a flipped bit"](victim.read_bytes()))
    with pytest.raises(ValueError, match="is damaged: its SHA-256"):
        jaxdqn.load(run)


@pytest.mark.slow
def test_state_of_another_config_network_or_format_is_refused_with_the_difference(tmp_path):
    run, (_, newer) = newest_two(tmp_path)
    path = run / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "n_steps": 4}))
    with pytest.raises(ValueError, match=r"has n_steps 3 and config.json 4: restore config.json"):
        finish(jaxdqn.resume(run))
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trained without your own network: do not pass network"):
        finish(jaxdqn.resume(run, network=jaxdqn.DuelingMLP(2)))
    facts = json.loads((run / "states" / newer / "manifest.json").read_text())
    assert facts["format"] == run_manifest.FORMAT
    run_manifest.FORMAT += 1
    try:
        with pytest.raises(ValueError, match=r"has format 2 and this jaxdqn reads 3: .* wrote it \(0\.1\.0\)"):
            finish(jaxdqn.resume(run))
    finally:
        run_manifest.FORMAT -= 1
    finish(jaxdqn.resume(run, say=quiet))
    with pytest.raises(ValueError, match="complete at frame 320: resume with --total-frames above that"):
        finish(jaxdqn.resume(run))
    longer = finish(jaxdqn.resume(run, total_frames=352, say=pytest.fail))
    assert longer.progress.frames == 352
    assert [int(row["frames"]) for row in table(run / "evaluations.csv")] == [320, 352]


@pytest.mark.slow
def test_without_saved_replay_the_ring_is_filled_again_and_missed_updates_are_not_made_up(tmp_path):
    config = config_in(tmp_path / "run", checkpoint_replay=False)
    finish(jaxdqn.train(config), stop_after=200)
    assert not (tmp_path / "run" / "states" / "0000000192" / "replay").exists()
    notes = []
    steps = list(jaxdqn.resume(tmp_path / "run", say=notes.append))
    assert len(notes) == 1
    assert "without replay" in notes[0]
    updates = [step.progress.updates for step in steps]
    before = updates[0]
    assert [step.progress.frames for step in steps][:3] == [208, 224, 240]
    # 48 frames of warm-up again, and then two updates per batch as before.
    assert updates == [before, before, before + 2, *range(before + 4, before + 14, 2)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux")
@pytest.mark.several
def test_checkpoint_takes_little_extra_memory(monkeypatch):
    """`experiments/checkpoint_cost.py` is the long form, with 100,000 rows and timings."""
    monkeypatch.setattr(replay_files, "CHUNK_BYTES", 2**19)
    cost = checkpoint_cost.measure(2_000, noise=True, new_rows=32)
    assert cost.extra_bytes < 1.3 * cost.replay_bytes
    assert cost.disk_bytes > 0.95 * cost.replay_bytes  # noise cannot be compressed, so all bytes were written


class Closed(gym.Wrapper):
    """A wrapper that may have state: it is not on the list of stateless ones."""


@pytest.mark.slow
def test_environments_that_cannot_be_saved_start_new_episodes_and_the_old_ones_are_truncated(tmp_path):
    config = config_in(tmp_path / "run")

    def env_fn():
        return Closed(probes.TruncatedChain())

    before = finish(jaxdqn.train(config, env_fn=env_fn), stop_after=112)
    notes = []
    steps = jaxdqn.resume(tmp_path / "run", env_fn=env_fn, say=notes.append)
    first = next(steps)
    assert any("not bit-exact" in note for note in notes)
    rows = first.progress.state.replay.rows
    start = 96 // 4  # the first slot after the state
    assert before.progress.frames == 112
    assert np.asarray(rows.last)[start - 1].all()
    assert not np.asarray(rows.terminated)[start - 1].any()
    assert (np.asarray(rows.episode_step)[start] == 0).all()
    kill(steps)


@pytest.mark.slow
def test_due_evaluation_is_played_once_even_if_the_run_is_killed_again(tmp_path):
    whole = config_in(tmp_path / "whole", evaluate_every=96, checkpoint_every=0)
    finish(jaxdqn.train(whole))
    run = tmp_path / "run"
    stop = Stop()
    steps = jaxdqn.train(config_in(run, evaluate_every=96, checkpoint_every=0), stop=stop)
    while next(steps).progress.frames < 80:  # the next batch is evaluated
        pass
    stop._signal = signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        next(steps)
    assert newest_manifest(run).record.evaluation_due
    assert newest_manifest(run).frames == 96
    for due in (True, False):  # killed after the evaluation, before the next state
        assert newest_manifest(run).record.evaluation_due is due
        steps = jaxdqn.resume(run, say=pytest.fail)
        assert (next(steps).evaluation is not None) is due
        kill(steps)
    finish(jaxdqn.resume(run, say=pytest.fail))
    for name in ("evaluations.csv", "metrics.csv"):
        assert table(run / name) == table(tmp_path / "whole" / name)


def newest_manifest(run):
    return States(run / "states", keep=2, with_replay=True).newest().manifest


@pytest.mark.slow
def test_truncation_made_by_a_resume_is_saved_in_the_next_state(tmp_path, monkeypatch):
    """With files of eight slots the truncated row is the last of a file that gets no new row before the next state."""
    monkeypatch.setattr(replay_files, "CHUNK_BYTES", 8 * 4 * (8 + 14))
    config = config_in(tmp_path / "run", keep=1)

    def env_fn():
        return Closed(probes.TruncatedChain())

    def quietly(note):
        pass

    finish(jaxdqn.train(config, env_fn=env_fn), stop_after=112)
    finish(jaxdqn.resume(tmp_path / "run", env_fn=env_fn, say=quietly), stop_after=144)
    first = next(jaxdqn.resume(tmp_path / "run", env_fn=env_fn, say=quietly))
    rows = first.progress.state.replay.rows
    step, last = np.asarray(rows.episode_step), np.asarray(rows.last)
    starts = np.argwhere(step[1:36] == 0)
    assert all(last[slot, env] for slot, env in starts)  # a final row precedes each first row
