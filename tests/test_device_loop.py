"""Training on the device: the host loop's counts, the same run however it is cut, and seeds as a vmap."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import counting_env

import jaxdqn
from jaxdqn.config import Config
from jaxdqn.envs.adapters import GymnasiumEnv
from jaxdqn.envs.device import functional_env, functional_twin
from jaxdqn.envs.pixels import make_env_fn
from jaxdqn.run import device_loop as module
from jaxdqn.run.device_evaluation import make_device_evaluation
from jaxdqn.run.device_loop import device_loop
from jaxdqn.run.device_run import make_device_run

CONFIG = Config(
    pixels=False,
    loop="device",
    total_frames=60,
    num_envs=2,
    frames_per_batch=10,
    batch_size=4,
    updates_per_batch=2,
    capacity=60,
    warmup_frames=20,
    n_steps=1,
    evaluate_every=40,
    reward_scale=0.1,
)
PIXELS = dataclasses.replace(
    CONFIG,
    pixels=True,
    frame_size=44,
    frame_stack=2,
    total_frames=100,
    batch_size=8,
    updates_per_batch=5,
    random_shift=1,
    mirror=True,
    normalisation_frames=16,
    evaluate_every=0,
)


def equal(tree, other):
    def leaf(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(leaf(a), leaf(b)) for a, b in pairs)


def apart(tree, other):
    """The largest difference of two trees."""
    return max(float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (tree, other)), strict=True))


@pytest.fixture(scope="module")
def run():
    return make_device_run(CONFIG, env=counting_env(2))


@pytest.fixture(scope="module")
def pixel_run():
    return make_device_run(PIXELS)


def loop(run, key=0):
    return device_loop(run, run.init(jax.random.key(key)), CONFIG)


def test_counts_are_the_host_loops(run):
    progress = list(loop(run))
    assert [step.frames for step in progress] == [10, 20, 30, 40, 50, 60]
    assert [step.updates for step in progress] == [0, 2, 4, 6, 8, 10]
    assert [bool(step.metrics) for step in progress] == [False, True, True, True, True, True]
    assert all(np.isfinite(list(step.metrics.values())).all() for step in progress)
    assert set(progress[-1].metrics) == {"loss", "gradient_norm", "q_value"}
    # Two steps and a final observation an episode: 5 steps of 2 environments a batch, 30 of each in all.
    episodes = [episode for step in progress for episode in step.episodes]
    assert [tuple(episode) for episode in episodes] == [(10.0, 2)] * 20
    end = progress[-1].run_state
    assert int(end.agent.actor.frame) == 60
    assert int(end.agent.learner.num_updates) == 10
    assert end.agent.replay.rows.episode_step[:, 0].tolist() == [0, 1, 2] * 10
    assert [step.epsilon for step in progress] == pytest.approx(
        [float(run.agent.epsilon(jnp.int32(step.frames))) for step in progress]
    )


def test_a_state_is_there_where_the_config_evaluates(run):
    there = [step.frames for step in loop(run) if step.state is not None]
    assert {10, 40, 60} <= set(there)  # the end of the warm-up, an evaluation, the end of the run


def test_the_same_seed_gives_the_same_run_however_it_is_cut(run, monkeypatch):
    first = list(loop(run))
    monkeypatch.setattr(module, "LONGEST", 1)
    again = list(loop(run))
    assert all(step.state is not None for step in again)
    assert equal(first[-1].run_state, again[-1].run_state)
    for one, other in zip(first, again, strict=True):
        assert one[:5] == other[:5]
    assert not equal(first[-1].state.learner, list(loop(run, key=1))[-1].state.learner)


def test_it_goes_on_where_it_stopped(run):
    whole = list(loop(run))
    for step in loop(run):
        if step.frames == 40:
            kept = jax.tree.map(jnp.copy, step.run_state)
            break
    rest = list(device_loop(run, kept, CONFIG))
    assert [step.frames for step in rest] == [50, 60]
    assert equal(whole[-1].run_state, rest[-1].run_state)


def test_the_whole_run_as_one_scan_is_the_loop(run):
    state, trace = jaxdqn.jit(run.train)(run.init(jax.random.key(0)))
    progress = list(loop(run))
    assert equal(state.agent.replay, progress[-1].state.replay)
    assert apart(state.agent.learner, progress[-1].state.learner) < 1e-5
    assert np.isnan(trace.metrics["loss"][0])
    losses = [step.metrics["loss"] for step in progress[1:]]
    assert trace.metrics["loss"][1:].tolist() == pytest.approx(losses, rel=1e-4)


def test_it_learns_what_a_chain_is_worth():
    """Two steps, of which the second gives 1 (scaled): gamma at first, then 1."""
    config = dataclasses.replace(
        CONFIG, total_frames=1_500, updates_per_batch=8, batch_size=32, gamma=0.8, tau=0.05, capacity=1_500
    )
    run = make_device_run(config, env=counting_env(2))
    *_, progress = device_loop(run, run.init(jax.random.key(0)), config)
    values = np.asarray(run.agent.q_values(progress.state.learner.params, jnp.array([[0.0], [1.0]])))
    assert values == pytest.approx(np.array([[0.8, 0.8], [1.0, 1.0]]), abs=0.06)


@pytest.mark.slow
def test_one_of_eight_seeds_is_the_seed_alone_and_the_eight_differ(pixel_run):
    def twenty_updates(state):
        state = pixel_run.collect(state)[0]
        return jax.lax.fori_loop(0, 4, lambda _, state: pixel_run.batch(state)[0], state)

    keys = jax.random.split(jax.random.key(0), 8)
    together = jaxdqn.jit(jax.vmap(twenty_updates))(jax.vmap(pixel_run.init)(keys))
    alone = jaxdqn.jit(twenty_updates)(pixel_run.init(keys[3])).agent.learner.params
    assert together.agent.learner.num_updates.tolist() == [20] * 8
    eight = [jax.tree.map(lambda x, i=i: x[i], together.agent.learner.params) for i in range(8)]
    assert apart(eight[3], alone) < 1e-4
    assert all(apart(eight[i], eight[j]) > 1e-2 for i in range(8) for j in range(i))
    assert apart(alone, pixel_run.init(keys[3]).agent.learner.params) > 1e-3  # or the comparison would say nothing


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA's CPU convolutions")
@pytest.mark.parametrize("seeds", [None, 3])
def test_every_convolution_within_the_loops_has_the_fast_form(pixel_run, seeds):
    """Channels last and straight on, forward and backward, and not a group a seed: all else is 5 to 17 times slower."""
    state, batch = pixel_run.init(jax.random.key(0)), pixel_run.batch
    if seeds is not None:
        state, batch = jax.vmap(pixel_run.init)(jax.random.split(jax.random.key(0), seeds)), jax.vmap(batch)
    compiled = jax.jit(lambda state: jax.lax.fori_loop(0, 4, lambda _, state: batch(state)[0], state))
    text = compiled.lower(state).as_text()
    layouts = re.findall(r"stablehlo\.convolution.*?dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", text)
    assert len(layouts) >= 9  # three layers: forward, and both gradients
    assert set(layouts) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    assert set(re.findall(r"feature_group_count = (\d+)", text)) == {"1"}
    assert set(re.findall(r"batch_group_count = (\d+)", text)) == {"1"}


def test_replays_of_many_seeds_that_do_not_fit_are_refused_beforehand():
    env = counting_env(2)
    one = make_device_run(CONFIG, env=env).agent.replay.num_bytes
    make_device_run(CONFIG, env=env, num_seeds=8, bytes_available=8 * one)
    with pytest.raises(ValueError, match=rf"capacity 60 needs {8 * one:,} bytes of replay of 8 seeds .* fits is 58"):
        make_device_run(CONFIG, env=env, num_seeds=8, bytes_available=8 * one - 1)


def test_greedy_evaluation_plays_each_episode_once():
    env = counting_env(3)
    evaluate = make_device_evaluation(env, lambda _, obs: jnp.zeros((5, 2)), episodes=5, frame_stack=None)
    assert evaluate(None, jax.random.key(0)).tolist() == [30.0] * 5
    cut = make_device_evaluation(env, lambda _, obs: jnp.zeros((5, 2)), episodes=5, frame_stack=None, longest=2)
    assert cut(None, jax.random.key(0)).tolist() == [10.0] * 5
    with pytest.raises(ValueError, match="episodes 0"):
        make_device_evaluation(env, lambda _, obs: obs, episodes=0, frame_stack=None)


def test_an_environment_of_the_users_own(tmp_path):
    config = dataclasses.replace(CONFIG, output=str(tmp_path / "run"), evaluation_episodes=2)
    with pytest.warns(RuntimeWarning, match=r"no agent\.gif: env GymnasiumEnv does not draw itself"):
        *_, step = jaxdqn.train(config, env_fn=lambda: GymnasiumEnv(counting_env(2)))
    assert step.evaluation.mean == 10
    assert jaxdqn.load(tmp_path / "run", env_fn=lambda: GymnasiumEnv(counting_env(2))).evaluate(3).mean == 10


def test_what_cannot_be_stepped_on_the_device_is_refused():
    with pytest.raises(ValueError, match=r"'Acrobot-v1' cannot be stepped on the device: use one of CartPole-v1, "):
        functional_env("Acrobot-v1")
    smaller = make_env_fn("Ball", frame_size=44, env_fn=lambda: GymnasiumEnv(jaxdqn.make_ball()))()
    with pytest.raises(ValueError, match=r"observations \(64, 64\) on the device, .* for \(44, 44\)"):
        functional_twin(smaller, pixels=True, frame_size=44)
    for change in ({"collector": "async"}, {"replay_storage": "host"}):
        with pytest.raises(ValueError, match="needs loop host"):
            dataclasses.replace(CONFIG, **change)


@pytest.mark.slow
def test_the_command_line_trains_on_the_device(tmp_path, capsys):
    from jaxdqn.cli import main

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
