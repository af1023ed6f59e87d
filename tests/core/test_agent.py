"""The functions of an agent, used directly: jitted, scanned, vmapped, and without the loop."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.agent.making import make_agent
from jaxdqn.config import Config
from jaxdqn.networks.architectures import make_network
from jaxdqn.presets import PRESETS
from jaxdqn.types import Rows

CONFIG = Config(
    pixels=False,
    total_frames=96,
    num_envs=2,
    frames_per_batch=16,
    batch_size=4,
    updates_per_batch=3,
    capacity=64,
    warmup_frames=32,
    epsilon_start=0.5,
    epsilon_end=0.1,
    epsilon_frames=0,
    n_steps=10,
)


@lru_cache  # an agent is pure: its programs are compiled once
def build():
    return make_agent(CONFIG, num_actions=3, obs_shape=(5,), obs_dtype=np.float32)


def some_rows(length, num_envs=2, seed=0):
    rng = np.random.default_rng(seed)
    shape = (length, num_envs)
    return Rows(
        obs=jnp.asarray(rng.normal(size=(*shape, 5)), jnp.float32),
        action=jnp.asarray(rng.integers(0, 3, shape), jnp.int32),
        reward=jnp.asarray(rng.normal(size=shape), jnp.float32),
        terminated=jnp.zeros(shape, bool),
        last=jnp.zeros(shape, bool),
        episode_step=jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[:, None], shape),
    )


def close(one, other, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), one, other)


def test_learn_equals_sample_then_update():
    agent = build()
    state = agent.observe(agent.init(jax.random.key(0)), some_rows(20))
    key, sample_key = jax.random.split(state.key)
    samples = agent.sample(state.replay, sample_key)
    learner, metrics, _ = agent.update(jax.tree.map(jnp.copy, state.learner), samples)
    learned, traces = agent.learn(state)
    close(learned.learner, learner, 1e-6)
    close(traces, metrics, 1e-5)
    assert jnp.array_equal(jax.random.key_data(learned.key), jax.random.key_data(key))
    assert traces["loss"].shape == (CONFIG.updates_per_batch,)
    assert int(learned.learner.num_updates) == 3


def test_the_actor_still_acts_after_its_learner_was_donated():
    agent = build()
    state = agent.observe(agent.init(jax.random.key(0)), some_rows(20))
    learned, _ = agent.learn(state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.learner.params))  # donated
    obs = np.ones((2, 5), np.float32)
    agent.act(state.actor, obs)  # the old copy still acts after the update
    close(learned.actor.params, learned.learner.params, 0.0)
    again, _ = agent.learn(learned)
    agent.act(learned.actor, obs)
    assert not np.allclose(jax.tree.leaves(again.actor.params)[1], jax.tree.leaves(learned.actor.params)[1])


def test_act_counts_one_frame_per_environment_and_epsilon_depends_on_the_frame():
    agent = build()
    actor = agent.init(jax.random.key(0)).actor
    for _ in range(3):
        actor, actions = agent.act(actor, np.zeros((2, 5), np.float32))
    assert int(actor.frame) == 6
    assert actions.shape == (2,)
    assert [round(float(agent.epsilon(jnp.asarray(frame))), 6) for frame in (0, 31, 48, 96, 200)] == [
        1,
        1,
        0.3,
        0.1,
        0.1,
    ]


def test_learning_starts_when_the_warm_up_is_over_and_a_window_fits():
    assert build().learning_start == 32
    small = Config(**{**CONFIG.to_dict(), "warmup_frames": 0, "n_steps": 9})
    agent = make_agent(small, num_actions=3, obs_shape=(5,), obs_dtype=np.float32)
    assert agent.learning_start == 2 * (1 + 9 + 1)
    late = Config(**{**CONFIG.to_dict(), "total_frames": 16, "warmup_frames": 0, "n_steps": 9})
    with pytest.raises(ValueError, match="before learning starts at 22"):
        make_agent(late, num_actions=3, obs_shape=(5,), obs_dtype=np.float32)


def test_the_learning_rate_reaches_its_end_value_at_the_last_update():
    # The run learns after batches 2 to 6, three times each: 15 updates, so the last has index 14.
    config = Config(**{**CONFIG.to_dict(), "learning_rate": 1e-2, "learning_rate_end": 0.0, "tau": 1.0})
    agent = make_agent(config, num_actions=3, obs_shape=(5,), obs_dtype=np.float32)
    state = agent.observe(agent.init(jax.random.key(0)), some_rows(20))
    moved = []
    for _ in range(5):
        before = jax.tree.map(jnp.copy, state.learner.params)
        state, _ = agent.learn(state)
        moved.append(
            max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), before, state.learner.params)))
        )
    assert moved[0] > 10 * moved[4] > 0
    settled = jax.tree.map(jnp.copy, state.learner.params)
    state, _ = agent.learn(state)  # beyond the schedule the step is its end value, 0
    close(state.learner.params, settled, 1e-8)  # 14 / 14 is 1 to float32 rounding


@pytest.mark.long
def test_vmap_over_seeds_and_scan_over_steps_give_the_result_of_single_runs():
    agent = build()

    def train(key):
        def step(state, rows):
            actor, _ = agent.act(state.actor, rows.obs[0])
            state, metrics = agent.learn(agent.observe(state._replace(actor=actor), rows))
            return state, metrics["loss"].mean()

        state = agent.observe(agent.init(key), some_rows(16))
        return jax.lax.scan(step, state, jax.tree.map(lambda x: jnp.stack([x] * 3), some_rows(4, seed=1)))

    keys = jax.random.split(jax.random.key(0), 3)
    many, losses = jax.jit(jax.vmap(train))(keys)
    assert losses.shape == (3, 3)
    for index in range(3):
        one, _ = jax.jit(train)(keys[index])
        close(jax.tree.map(lambda x, i=index: x[i], many.learner.params), one.learner.params, 1e-4)
    kernels = jax.tree.leaves(many.learner.params)[1]
    assert not np.allclose(kernels[0], kernels[1])


def test_rows_of_another_number_of_environments_are_refused():
    agent = build()
    with pytest.raises(ValueError, match="rows of 1 environments do not fit a ring of num_envs 2"):
        agent.observe(agent.init(jax.random.key(0)), some_rows(4, num_envs=1))


@pytest.mark.parametrize(("preset", "size"), [("cartpole", 65_043), ("torchrl", 1_262_691)])
def test_each_preset_has_a_network_of_its_size(preset, size):
    network = make_network(PRESETS[preset], num_actions=2)
    images = jnp.zeros((1, 64, 64, PRESETS[preset].frame_stack))
    params = jax.eval_shape(network.init, jax.random.key(0), images)
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == size


@pytest.mark.parametrize(
    ("network", "smallest"),
    [("motion", 36), ("padded-motion", 36), ("nature", 36), ("cnn", 27), ("torchrl", 20), ("grid", 3)],
)
def test_frames_too_small_for_the_network_are_refused_and_the_smallest_are_accepted(network, smallest):
    with pytest.raises(
        ValueError, match=f"frame_size {smallest - 1} is too small for network '{network}'.* {smallest}"
    ):
        make_network(Config(network=network, frame_size=smallest - 1), num_actions=2)
    built = make_network(Config(network=network, frame_size=smallest), num_actions=2)
    values = jax.eval_shape(built.init_with_output, jax.random.key(0), jnp.zeros((1, smallest, smallest, 4)))[0]
    assert values.q_values.shape == (1, 2)


@pytest.mark.parametrize("compiled", [False, True])
def test_learn_changes_nothing_if_the_ring_cannot_be_sampled(compiled):
    agent = build()
    state = agent.init(jax.random.key(0))
    before = jax.tree.map(np.asarray, (state.learner, state.actor.params, jax.random.key_data(state.key)))
    learned, metrics = (jax.jit(agent.learn) if compiled else agent.learn)(state)
    after = learned.learner, learned.actor.params, jax.random.key_data(learned.key)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert all(np.isnan(value).all() for value in metrics.values())
