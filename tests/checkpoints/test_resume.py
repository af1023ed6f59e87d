"""A run that was stopped goes on as if it had not been: bit for bit, with no row twice and none missing."""

import dataclasses
import shutil

import numpy as np
import pytest
from running import kill
from small_runs import PIXELS, equal
from stopped_runs import VECTORS, config_in, finish, newest, table

import jaxdqn
from jaxdqn.envs.functional.adapters import GymnasiumEnv

DEVICE = dataclasses.replace(VECTORS, loop="device")
FRAMES = dataclasses.replace(
    PIXELS, loop="host", total_frames=120, warmup_frames=40, capacity=60, checkpoint_every=40, evaluation_episodes=1
)
HOST_REPLAY = dataclasses.replace(FRAMES, replay_storage="host", updates_per_batch=4)  # in pieces of one size


def functional():
    return GymnasiumEnv(jaxdqn.make_cartpole(pixels=False), render_mode="rgb_array")


def bytes_of(found):
    """Every file of a state but the manifest, which names times; orbax's own names differ from run to run."""
    facts = {k: v for k, v in found.facts.items() if k not in ("files", "log", "config")}
    arrays = {path.name: path.read_bytes() for path in sorted((found.folder / "replay").iterdir())}
    envs = [dict(np.load(path)) for path in sorted(found.folder.glob("*.npz"))]
    assert len(envs) == 1  # gymnasium's, or functional ones
    return facts, arrays, envs[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "how"),
    [
        (VECTORS, {}),
        (DEVICE, {}),
        (dataclasses.replace(VECTORS, replay_storage="host", updates_per_batch=4), {}),  # in pieces of one size
        pytest.param(HOST_REPLAY, {}, marks=pytest.mark.long),
        pytest.param(VECTORS, {"env_fn": functional}, marks=pytest.mark.long),
    ],
    ids=["host", "device", "replay on the host", "frames on the host", "a functional environment on the host"],
)
def test_a_run_in_two_parts_is_the_run_in_one(config, how, tmp_path):
    runs = [tmp_path / "one", tmp_path / "two"]
    whole = finish(jaxdqn.train(dataclasses.replace(config, output=str(runs[0])), **how))
    # Two batches beyond a state: what they left in the files is done again.
    finish(
        jaxdqn.train(dataclasses.replace(config, output=str(runs[1])), **how),
        stop_after=2 * config.checkpoint_every + 2 * config.frames_per_batch,
    )
    assert newest(runs[1], config).facts["frames"] < config.total_frames
    rest = finish(jaxdqn.resume(runs[1], say=pytest.fail, **how))
    assert equal(whole.progress.state, rest.progress.state)
    if config.loop == "device":
        assert equal(whole.progress.run_state, rest.progress.run_state)
    assert whole.progress[:3] == rest.progress[:3]
    for name in ("metrics.csv", "evaluations.csv"):
        assert table(runs[0] / name) == table(runs[1] / name)
        frames = [int(row["frames"]) for row in table(runs[1] / name)]
        assert frames == sorted(set(frames))
    first, second = (bytes_of(newest(run, config)) for run in runs)
    assert first[0] == second[0]
    assert first[1] == second[1]
    assert first[2].keys() == second[2].keys()
    for name in first[2]:
        assert np.array_equal(first[2][name], second[2][name])
    agents = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in runs]
    assert agents[0] == agents[1]
    best = [jaxdqn.load(run, env_fn=how.get("env_fn")).params for run in runs]
    assert equal(*best)


@pytest.mark.slow
def test_one_process_at_a_time_and_nothing_is_thrown_away(tmp_path):
    run = tmp_path / "run"
    steps = jaxdqn.train(config_in(run, total_frames=128))
    next(steps)
    with pytest.raises(ValueError, match="is being trained by this process"):
        next(jaxdqn.resume(run))
    kill(steps)
    # Before the first state: what was left is set aside.
    notes = []
    finish(jaxdqn.resume(run, say=notes.append))
    assert "begins anew" in notes[0]
    assert "metrics.csv" in {path.name for path in (run / "earlier-1").iterdir()}
    # A finished run without states is left as it is; one that lacks a picture gets it.
    (run / "agent.gif").unlink()
    assert finish(jaxdqn.resume(run, say=pytest.fail)) is None
    assert (run / "agent.gif").is_file()
    shutil.rmtree(run / "states")
    before = (run / "metrics.csv").read_bytes()
    with pytest.raises(ValueError, match="is complete at frame 128 and holds no state"):
        finish(jaxdqn.resume(run))
    assert (run / "metrics.csv").read_bytes() == before
    jaxdqn.load(run)


@pytest.mark.slow
def test_what_was_the_users_own_must_be_given_again(tmp_path):
    run = tmp_path / "run"
    steps = jaxdqn.train(config_in(run), loss=lambda error: 100 * error**2)
    next(steps)
    steps.close()
    with pytest.raises(ValueError, match=r"trained with loss of your own, .*<lambda>: give it that loss again"):
        finish(jaxdqn.resume(run))
