"""A run as pure functions: a single ring, vmapped seeds, fast convolutions, and rejected settings."""

import dataclasses
import re

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from probes import counting_env
from small_runs import CONFIG, PIXELS, equal, max_difference

import jaxdqn
from jaxdqn.algorithms import with_algorithm
from jaxdqn.envs.functional.adapters import GymnasiumEnv
from jaxdqn.envs.functional_by_id import functional_env, functional_form
from jaxdqn.envs.gymnasium.building import make_env_fn
from jaxdqn.evaluation.device_evaluation import make_device_evaluation
from jaxdqn.loops.assemble import make_device_run
from jaxdqn.loops.device_loop import device_loop


@pytest.fixture(scope="module")
def run():
    return make_device_run(CONFIG, env=counting_env(2))


@pytest.fixture(scope="module")
def rainbow_run():
    return make_device_run(with_algorithm(CONFIG, "rainbow"), env=counting_env(2))


@pytest.fixture(scope="module")
def m_iqn_run():
    return make_device_run(with_algorithm(CONFIG, "m-iqn"), env=counting_env(2))


@pytest.fixture(scope="module")
def pixel_run():
    return make_device_run(PIXELS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "which",
    [
        pytest.param("run", marks=pytest.mark.several),
        pytest.param("rainbow_run", marks=pytest.mark.long),
        pytest.param("m_iqn_run", marks=pytest.mark.long),
        pytest.param("pixel_run", marks=pytest.mark.long),
    ],
)
def test_each_vmapped_seed_equals_its_separate_run_and_all_seeds_differ(which, request):
    run, batches, seeds = request.getfixturevalue(which), 4 if which == "pixel_run" else 10, 8

    def twenty_updates(state):
        state = jax.lax.fori_loop(0, run.warm_up_batches, lambda _, state: run.collect(state)[0], state)
        return jax.lax.fori_loop(0, batches, lambda _, state: run.batch(state)[0], state)

    keys = jax.random.split(jax.random.key(0), seeds)
    together = jaxdqn.jit(jax.vmap(twenty_updates))(jax.vmap(run.init)(keys))
    alone = jaxdqn.jit(twenty_updates)(run.init(keys[1])).agent.learner.params
    assert together.agent.learner.num_updates.tolist() == [20] * seeds
    each = [jax.tree.map(lambda x, i=i: x[i], together.agent.learner.params) for i in range(seeds)]
    assert max_difference(each[1], alone) < 1e-4
    assert all(max_difference(each[i], each[j]) > 1e-2 for i in range(seeds) for j in range(i))
    assert max_difference(alone, run.init(keys[1]).agent.learner.params) > 1e-3  # or nothing was learned to compare


@pytest.mark.several
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA's CPU convolutions")
@pytest.mark.parametrize("seeds", [pytest.param(None, marks=pytest.mark.long), 3])
def test_every_convolution_in_the_loops_has_the_fast_form(pixel_run, seeds):
    """Channels last, no reversal and no groups, forward and backward: other forms are 5 to 17 times slower."""
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


def test_replays_of_many_seeds_that_do_not_fit_are_rejected_before_the_run(monkeypatch):
    env = counting_env(2)
    one = make_device_run(CONFIG, env=env).agent.replay.num_bytes
    make_device_run(CONFIG, env=env, num_seeds=8, bytes_available=8 * one)
    monkeypatch.setattr("jaxdqn.loops.assemble.free_bytes", lambda parts: 2 * one)
    make_device_run(CONFIG, env=env, num_seeds=2)
    with pytest.raises(ValueError, match=f"replay of 3 seeds and {2 * one:,} are free"):
        make_device_run(CONFIG, env=env, num_seeds=3)
    with pytest.raises(ValueError, match="num_seeds 0"):
        make_device_run(CONFIG, env=env, num_seeds=0)
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


def test_environments_and_settings_that_need_the_host_are_rejected():
    with pytest.raises(ValueError, match=r"'Acrobot-v1' cannot be stepped on the device: use one of CartPole-v1, "):
        functional_env("Acrobot-v1")
    for own, says in (
        (lambda: gym.make("CartPole-v1", render_mode="rgb_array"), "env_fn returns CartPoleEnv, which cannot"),
        (lambda: TimeLimit(GymnasiumEnv(jaxdqn.make_ball()), 3), "GymnasiumEnv wrapped in TimeLimit, which cannot"),
    ):
        with pytest.raises(ValueError, match=says):
            functional_form(make_env_fn("own", env_fn=own)())
    for change in ({"collector": "async"}, {"replay_storage": "host"}):
        with pytest.raises(ValueError, match="needs loop host"):
            dataclasses.replace(CONFIG, **change)
        with pytest.raises(ValueError, match="needs loop host"):
            make_device_run(dataclasses.replace(CONFIG, loop="host", **change), env=counting_env(2))
    with pytest.raises(ValueError, match=r"observation_space Box.*\(1,\).* pixels=True needs images on the device"):
        make_device_run(PIXELS, env=counting_env(2))
    from_one = counting_env(2)._replace(action_space=gym.spaces.Discrete(2, start=1))
    with pytest.raises(ValueError, match="discrete actions from 0"):
        make_device_run(CONFIG, env=from_one)


@pytest.mark.long
def test_a_device_run_learns_the_values_of_a_chain():
    """The second of two steps has reward 1 (scaled): the values are gamma, then 1."""
    config = dataclasses.replace(
        CONFIG, total_frames=1_500, updates_per_batch=8, batch_size=32, gamma=0.8, tau=0.05, capacity=1_500
    )
    run = make_device_run(config, env=counting_env(2))
    *_, progress = device_loop(run, run.init(jax.random.key(0)), config)
    values = np.asarray(run.agent.q_values(progress.state.learner.params, jnp.array([[0.0], [1.0]])))
    assert values == pytest.approx(np.array([[0.8, 0.8], [1.0, 1.0]]), abs=0.06)


def test_train_as_one_scan_equals_the_device_loop(run):
    state, trace = jaxdqn.jit(run.train)(run.init(jax.random.key(0)))
    progress = list(device_loop(run, run.init(jax.random.key(0)), CONFIG))
    assert equal(state.agent.replay, progress[-1].state.replay)
    assert max_difference(state.agent.learner, progress[-1].state.learner) < 1e-5
    assert len(trace.ended.ended) == len(progress)
    losses = [step.metrics["loss"] for step in progress[run.warm_up_batches :]]
    assert 0 < len(losses) < len(progress)
    assert trace.metrics["loss"].tolist() == pytest.approx(losses, rel=1e-4)


def test_there_is_only_one_copy_of_the_ring(run):
    state = run.agent.init(jax.random.key(0))
    shape = state.replay.rows.obs.shape

    def rings():
        return [array for array in jax.live_arrays() if array.shape == shape and not array.is_deleted()]

    before = len(rings())  # this one, and those that other tests may have left
    started = run.start(state, jax.random.key(1))
    assert started.agent.replay.rows.obs is state.replay.rows.obs
    for _ in device_loop(run, started, CONFIG):
        assert len(rings()) == before
