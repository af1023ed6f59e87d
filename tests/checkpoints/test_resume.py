"""A resumed run equals one that was never stopped: bit for bit, with no duplicate and no missing row."""

import dataclasses
import shutil

import numpy as np
import pytest
from running import kill
from small_runs import PIXELS, equal
from stopped_runs import VECTORS, config_in, finish, newest, table

import jaxdqn
from jaxdqn.algorithms import with_algorithm
from jaxdqn.envs.functional.adapters import GymnasiumEnv

# Priorities, noise and a distribution: all that a state can hold.
RAINBOW = dataclasses.replace(with_algorithm(VECTORS, "rainbow"), v_min=-5.0)
DEVICE = dataclasses.replace(RAINBOW, loop="device")
M_IQN = with_algorithm(VECTORS, "m-iqn")
STORED = dataclasses.replace(
    VECTORS, replay_storage="host", updates_per_batch=4, prioritized=True
)  # in fetches of one size
FRAMES = dataclasses.replace(
    PIXELS, loop="host", total_frames=120, warmup_frames=40, capacity=60, checkpoint_every=40, evaluation_episodes=1
)
HOST_REPLAY = dataclasses.replace(FRAMES, replay_storage="host", updates_per_batch=4)  # in fetches of one size


def functional():
    return GymnasiumEnv(jaxdqn.make_cartpole(pixels=False), render_mode="rgb_array")


def bytes_of(found):
    """Return a state's manifest without times, its replay files, and its environments and priorities."""
    record = dataclasses.replace(found.manifest.record, log=None, config={})
    facts = found.manifest._replace(record=record)
    arrays = {path.name: path.read_bytes() for path in sorted((found.folder / "replay").iterdir())}
    others = [path for path in found.folder.glob("*.npz") if path.name != "priorities.npz"]
    assert len(others) == 1  # the environments: gymnasium's, or functional ones
    return (
        facts,
        arrays,
        {f"{path.stem} {name}": x for path in found.folder.glob("*.npz") for name, x in np.load(path).items()},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "how"),
    [
        pytest.param(RAINBOW, {}, marks=pytest.mark.several),
        pytest.param(DEVICE, {}, marks=pytest.mark.long),
        pytest.param(STORED, {}, marks=pytest.mark.long),
        pytest.param(dataclasses.replace(VECTORS, loop="device"), {}, marks=pytest.mark.long),
        pytest.param(VECTORS, {}, marks=pytest.mark.long),
        pytest.param(M_IQN, {}, marks=pytest.mark.long),
        pytest.param(dataclasses.replace(M_IQN, loop="device"), {}, marks=pytest.mark.long),
        pytest.param(with_algorithm(DEVICE, "qr"), {}, marks=pytest.mark.long),
        pytest.param(HOST_REPLAY, {}, marks=pytest.mark.long),
        pytest.param(VECTORS, {"env_fn": functional}, marks=pytest.mark.long),
    ],
    ids=[
        "rainbow on the host",
        "rainbow on the device",
        "replay on the host",
        "plain on the device",
        "plain on the host",
        "m-iqn on the host",
        "m-iqn on the device",
        "qr on the device",
        "frames on the host",
        "a functional environment on the host",
    ],
)
def test_resumed_run_equals_an_uninterrupted_one(config, how, tmp_path):
    runs = [tmp_path / "one", tmp_path / "two"]
    whole = finish(jaxdqn.train(dataclasses.replace(config, output=str(runs[0])), **how))
    # Stopped two batches after a state: their rows are written again.
    finish(
        jaxdqn.train(dataclasses.replace(config, output=str(runs[1])), **how),
        stop_after=2 * config.checkpoint_every + 2 * config.frames_per_batch,
    )
    assert newest(runs[1], config).manifest.frames < config.total_frames
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
    assert config.prioritized == any(name.startswith("priorities") for name in first[2])
    for name in first[2]:
        assert np.array_equal(first[2][name], second[2][name])
    agents = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in runs]
    assert agents[0] == agents[1]
    best = [jaxdqn.load(run, env_fn=how.get("env_fn")).params for run in runs]
    assert equal(*best)


@pytest.mark.slow
def test_resume_refuses_a_running_run_and_deletes_nothing(tmp_path):
    run = tmp_path / "run"
    steps = jaxdqn.train(config_in(run))
    next(steps)
    with pytest.raises(ValueError, match="is being trained by this process"):
        next(jaxdqn.resume(run))
    kill(steps)
    # Killed before the first state: its files are moved away.
    notes = []
    finish(jaxdqn.resume(run, say=notes.append))
    assert "starts again from scratch" in notes[0]
    assert "metrics.csv" in {path.name for path in (run / "earlier-1").iterdir()}
    # A finished run without states is not changed; one that lacks a picture gets it.
    (run / "agent.gif").unlink()
    assert finish(jaxdqn.resume(run, say=pytest.fail)) is None
    assert (run / "agent.gif").is_file()
    shutil.rmtree(run / "states")
    before = (run / "metrics.csv").read_bytes()
    with pytest.raises(ValueError, match="is complete at frame 320 and has no state"):
        finish(jaxdqn.resume(run))
    assert (run / "metrics.csv").read_bytes() == before
    jaxdqn.load(run)


@pytest.mark.slow
def test_custom_loss_must_be_passed_again_to_resume(tmp_path):
    run = tmp_path / "run"
    steps = jaxdqn.train(config_in(run), loss=lambda error: 100 * error**2)
    next(steps)
    steps.close()
    with pytest.raises(ValueError, match=r"trained with your own loss, .*<lambda>: pass that loss again"):
        finish(jaxdqn.resume(run))
