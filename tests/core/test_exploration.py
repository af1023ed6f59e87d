import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.config import Config
from jaxdqn.exploration import constant_epsilon, epsilon_greedy, exponential_epsilon, linear_epsilon
from jaxdqn.schedules import config_beta, config_epsilon

pytestmark = pytest.mark.usefixtures("strict_promotion")


def epsilon_at(frame, **kwargs):
    epsilon = linear_epsilon(jnp.int32(frame), start=0.5, end=0.25, duration_frames=1000, **kwargs)
    assert epsilon.dtype == jnp.float32
    return float(epsilon)


def action_counts(seed, epsilon, q_values, samples=30_000):
    """Return how often each action is taken, over many environments that all have the same values."""
    q_values = jnp.tile(jnp.array(q_values, jnp.float32), (samples, 1))
    actions = jax.jit(epsilon_greedy)(jax.random.key(seed), q_values, jnp.float32(epsilon))
    return np.bincount(np.asarray(actions), minlength=q_values.shape[1])


@pytest.mark.parametrize(
    ("frame", "epsilon"),
    [(0, 0.5), (250, 0.4375), (500, 0.375), (1000, 0.25), (1001, 0.25), (1_000_000, 0.25)],
)
def test_epsilon_is_linear_and_then_constant(frame, epsilon):
    assert epsilon_at(frame) == epsilon


def test_epsilon_of_the_torchrl_tutorial_is_halfway_after_half_of_its_frames():
    epsilon = linear_epsilon(jnp.int32(250_000), 0.1, 0.005, 500_000)
    np.testing.assert_allclose(epsilon, 0.0525, rtol=1e-6)


@pytest.mark.parametrize(("frame", "epsilon"), [(0, 1.0), (499, 1.0), (500, 0.375), (1000, 0.25)])
def test_epsilon_is_1_during_warm_up_without_shifting_the_schedule(frame, epsilon):
    assert epsilon_at(frame, warmup_frames=500) == epsilon


def test_warm_up_may_outlast_the_schedule():
    assert epsilon_at(1999, warmup_frames=2000) == 1.0
    assert epsilon_at(2000, warmup_frames=2000) == 0.25


def test_epsilon_is_the_same_under_jit():
    frames = jnp.array([0, 249, 250, 500, 2000])
    epsilons = jax.jit(jax.vmap(lambda frame: linear_epsilon(frame, 0.5, 0.25, 1000, 250)))(frames)
    np.testing.assert_array_equal(epsilons, [1.0, 1.0, 0.4375, 0.375, 0.25])


@pytest.mark.parametrize("seed", range(5))
def test_epsilon_0_is_greedy_in_each_environment(seed):
    q_values = jnp.array([[1.0, 3.0, 2.0], [-1.0, -3.0, -2.0], [0.0, 0.0, 0.5]])
    np.testing.assert_array_equal(epsilon_greedy(jax.random.key(seed), q_values, jnp.float32(0.0)), [1, 0, 2])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_epsilon_1_is_uniform_over_all_actions(seed):
    counts = action_counts(seed, 1.0, [0.0, 9.0, 0.0, 0.0])
    # Pearson's statistic of 4 actions exceeds 16.27 once in 1000 keys; without the greedy action it would be 10,000.
    assert np.sum((counts - 7500) ** 2 / 7500) < 16.27


@pytest.mark.parametrize("greedy", [0, 1, 2])
def test_random_actions_include_the_greedy_one(greedy):
    frequencies = action_counts(3, 0.3, np.eye(3)[greedy]) / 30_000
    expected = np.full(3, 0.1)
    expected[greedy] = 1 - 0.3 + 0.1
    # Four standard deviations of a share of 0.8 among 30,000, sqrt(0.8 * 0.2 / 30000) = 0.0023.
    np.testing.assert_allclose(frequencies, expected, rtol=0, atol=0.0093)


def test_environments_explore_independently():
    # With one draw for all, the count would be 0 or all 1000.
    random_ones = action_counts(4, 0.5, [1.0, 0.0], samples=1000)[1]
    assert 195 < random_ones < 305  # 1000 * 0.5 / 2 = 250, four standard deviations of 13.7


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_actions_are_int32_one_per_environment(epsilon):
    actions = epsilon_greedy(jax.random.key(0), jnp.zeros((7, 3)), jnp.float32(epsilon))
    assert actions.dtype == jnp.int32
    assert actions.shape == (7,)


def test_different_keys_explore_differently_and_the_same_key_identically():
    def actions(seed):
        return epsilon_greedy(jax.random.key(seed), jnp.zeros((64, 3)), jnp.float32(1.0)).tolist()

    assert actions(0) == actions(0)
    assert len({tuple(actions(seed)) for seed in range(8)}) == 8


@pytest.mark.parametrize(("frame", "epsilon"), [(0, 1.0), (50, 0.1), (100, 0.01), (1000, 0.01)])
def test_exponential_epsilon_falls_by_the_same_factor_in_each_frame(frame, epsilon):
    found = exponential_epsilon(jnp.int32(frame), 1.0, 0.01, 100)
    assert float(found) == pytest.approx(epsilon, rel=1e-5)
    assert float(exponential_epsilon(jnp.int32(frame), 1.0, 0.01, 100, warmup_frames=2000)) == 1.0


def test_constant_epsilon_is_1_during_warm_up_only():
    found = [float(constant_epsilon(jnp.int32(frame), 0.3, 10)) for frame in (0, 9, 10, 99)]
    assert found == pytest.approx([1, 1, 0.3, 0.3])


def test_a_config_chooses_the_schedule_and_noise_replaces_epsilon():
    config = Config(total_frames=1000, warmup_frames=100, epsilon_start=1.0, epsilon_end=0.01, epsilon_frames=500)
    changes = {name: {"epsilon_schedule": name} for name in ("linear", "exponential", "constant")}
    changes["noisy"] = {"noisy": True}
    found = {}
    for name, fields in changes.items():
        epsilon = config_epsilon(dataclasses.replace(config, **fields))
        found[name] = [round(float(epsilon(jnp.int32(frame))), 4) for frame in (50, 250, 900)]
    assert found["linear"] == [1.0, 0.505, 0.01]
    assert found["exponential"] == [1.0, 0.1, 0.01]
    assert found["constant"] == [1.0, 0.01, 0.01]
    assert found["noisy"] == [1.0, 0.0, 0.0]


def test_beta_moves_linearly_over_the_whole_run():
    config = Config(total_frames=1024, prioritized=True, priority_beta=0.4, priority_beta_end=1.0)
    beta = config_beta(config)
    assert [float(beta(jnp.int32(frame))) for frame in (0, 512, 1024, 4096)] == pytest.approx([0.4, 0.7, 1.0, 1.0])
