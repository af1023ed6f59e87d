"""The device loop: the same counts as the host loop, the same run for any chunk length, and the command line."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import counting_env
from small_runs import CONFIG, equal

import jaxdqn
from jaxdqn.envs.functional.adapters import GymnasiumEnv
from jaxdqn.loops import device_loop as module
from jaxdqn.loops.assemble import make_device_run
from jaxdqn.loops.device_loop import device_loop


@pytest.fixture(scope="module")
def run():
    return make_device_run(CONFIG, env=counting_env(2))


def loop(run, key=0):
    return device_loop(run, run.init(jax.random.key(key)), CONFIG)


def test_counts_are_those_of_the_host_loop(run):
    progress = list(loop(run))
    assert [step.frames for step in progress] == [10, 20, 30, 40, 50, 60]
    assert [step.updates for step in progress] == [0, 2, 4, 6, 8, 10]
    assert [bool(step.metrics) for step in progress] == [False, True, True, True, True, True]
    assert all(np.isfinite(list(step.metrics.values())).all() for step in progress)
    assert set(progress[-1].metrics) == {"loss", "gradient_norm", "q_value"}
    # An episode is two steps and a final observation; a batch is 5 steps of 2 environments: 30 rows of each in all.
    episodes = [episode for step in progress for episode in step.episodes]
    assert [tuple(episode) for episode in episodes] == [(10.0, 2)] * 20
    end = progress[-1].run_state
    assert int(end.agent.actor.frame) == 60
    assert int(end.agent.learner.num_updates) == 10
    assert end.agent.replay.rows.episode_step[:, 0].tolist() == [0, 1, 2] * 10
    assert [step.epsilon for step in progress] == pytest.approx(
        [float(run.agent.epsilon(jnp.int32(step.frames))) for step in progress]
    )


def test_fast_chunks_end_only_at_evaluations_and_at_the_end_of_the_warm_up(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_SECONDS", 1e9)
    config = dataclasses.replace(CONFIG, warmup_frames=30, total_frames=160, evaluate_every=50, capacity=160)
    run = make_device_run(config, env=counting_env(2))
    steps = list(device_loop(run, run.init(jax.random.key(0)), config))
    # The first chunk is one batch, and the limit then doubles at most; the warm-up ends at 20.
    assert [step.frames for step in steps if step.state is not None] == [10, 20, 50, 100, 150, 160]
    assert [step.updates for step in steps][:4] == [0, 0, 2, 4]


@pytest.mark.usefixtures("default_compilation")
@pytest.mark.several
def test_the_same_seed_gives_the_same_run_for_any_chunk_length(run, monkeypatch):
    first = list(loop(run))
    monkeypatch.setattr(module, "MAX_CHUNK_BATCHES", 1)
    again = list(loop(run))
    assert all(step.state is not None for step in again)
    assert equal(first[-1].run_state, again[-1].run_state)
    for one, other in zip(first, again, strict=True):
        assert one[:5] == other[:5]
    assert not equal(first[-1].state.learner, list(loop(run, key=1))[-1].state.learner)


def test_a_loop_continues_from_an_earlier_state(run):
    whole = list(loop(run))
    for step in loop(run):
        if step.frames == 40:
            kept = jax.tree.map(jnp.copy, step.run_state)
            break
    rest = list(device_loop(run, kept, CONFIG))
    assert [step.frames for step in rest] == [50, 60]
    assert equal(whole[-1].run_state, rest[-1].run_state)


@pytest.mark.pictures
def test_train_accepts_the_users_own_functional_environment(tmp_path):
    config = dataclasses.replace(CONFIG, output=str(tmp_path / "run"), evaluation_episodes=2)
    with pytest.warns(RuntimeWarning, match=r"no agent\.gif: env GymnasiumEnv does not draw itself"):
        *_, step = jaxdqn.train(config, env_fn=lambda: GymnasiumEnv(counting_env(2)))
    assert step.evaluation.mean == 10
    assert jaxdqn.load(tmp_path / "run", env_fn=lambda: GymnasiumEnv(counting_env(2))).evaluate(3).mean == 10


@pytest.mark.several
def test_the_command_line_trains_on_the_device(tmp_path, capsys):
    from jaxdqn.cli.main import main

    tiny = ["--frame-size", "44", "--frame-stack", "2", "--total-frames", "96", "--warmup-frames", "32"]
    tiny += ["--updates-per-batch", "1", "--batch-size", "8", "--normalisation-frames", "16", "--capacity", "192"]
    tiny += ["--n-steps", "5", "--evaluation-episodes", "1", "--output", str(tmp_path / "run"), "--loop", "device"]
    with pytest.raises(SystemExit) as stop:
        main(["train", *tiny])
    assert stop.value.code == 0, capsys.readouterr().err
    left = {"agent.gif", "checkpoints", "config.json", "curve.png", "evaluations.csv", "metrics.csv"}
    assert left <= {path.name for path in (tmp_path / "run").iterdir()}
    rows = (tmp_path / "run" / "metrics.csv").read_text().split()[1:]
    assert [row.split(",")[0] for row in rows] == ["32", "64", "96"]
    with pytest.raises(SystemExit) as stop:
        main(["train", "--loop", "device", "--env", "Acrobot-v1", "--output", str(tmp_path / "no")])
    assert stop.value.code == 2
    assert "cannot be stepped on the device" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
