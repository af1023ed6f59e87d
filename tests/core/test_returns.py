from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.returns import n_step_return

pytestmark = pytest.mark.usefixtures("strict_promotion")

with_and_without_jit = pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])

# An episode of 5 steps, then 5 steps of another one whose rewards must not affect the targets of the first.
REWARD = [1.0] * 5 + [100.0] * 5
END = [False] * 4 + [True] + [False] * 5
NEVER = [False] * 10


def window_return(reward, terminated, last, gamma, transform=lambda f: f):
    reward, terminated, last = jnp.asarray(reward, jnp.float32), jnp.asarray(terminated), jnp.asarray(last)
    return_, discount, steps = transform(partial(n_step_return, gamma=gamma))(reward, terminated, last)
    assert return_.dtype == discount.dtype == jnp.float32
    assert steps.dtype == jnp.int32
    return float(return_), float(discount), int(steps)


def constant_q_targets(terminated, transform):
    """Return the targets of steps 0..4 with Q = 10 everywhere, gamma 0.99 and n 5."""
    targets = []
    for t in range(5):
        window = slice(t, t + 5)
        return_, discount, steps = window_return(REWARD[window], terminated[window], END[window], 0.99, transform)
        assert steps == 5 - t
        targets.append(return_ + discount * 10.0)
    return np.array(targets)


def brute_force(reward, terminated, last, gamma):
    total = 0.0
    for i in range(len(reward)):
        total += gamma**i * float(reward[i])
        if last[i] or terminated[i]:
            return total, 0.0 if terminated[i] else gamma ** (i + 1), i + 1
    return total, gamma ** len(reward), len(reward)


@with_and_without_jit
def test_no_step_within_n_of_a_termination_bootstraps(transform):
    targets = constant_q_targets(END, transform)
    np.testing.assert_array_equal(targets.round(2), [4.90, 3.94, 2.97, 1.99, 1.00])
    # 1 + 0.99 + 0.9801 + 0.970299 + 0.96059601 and its beginnings; the tolerance is float32's rounding.
    np.testing.assert_allclose(targets, [4.90099501, 3.940399, 2.9701, 1.99, 1.0], rtol=3e-7)


@with_and_without_jit
def test_every_step_within_n_of_a_truncation_bootstraps_from_the_final_observation(transform):
    # R as above, and 10 * 0.99^k with k = 5, 4, 3, 2, 1.
    expected = [4.90099501 + 9.509900499, 3.940399 + 9.6059601, 2.9701 + 9.70299, 1.99 + 9.801, 1.0 + 9.9]
    np.testing.assert_allclose(constant_q_targets(NEVER, transform), expected, rtol=3e-7)


@with_and_without_jit
def test_terminated_and_truncated_at_once_counts_as_terminated(transform):
    terminated, truncated = np.array([False, True, False]), np.array([False, True, False])
    assert window_return([2.0, 4.0, 8.0], terminated, terminated | truncated, 0.5, transform) == (4.0, 0.0, 2)


@with_and_without_jit
def test_a_window_without_an_end_takes_all_its_steps(transform):
    # 2 + 4/2 + 8/4 = 6 and 1/2^3
    assert window_return([2.0, 4.0, 8.0], [False] * 3, [False] * 3, 0.5, transform) == (6.0, 0.125, 3)


def test_an_end_at_the_last_step_of_the_window_counts():
    last = [False, False, True]
    assert window_return([2.0, 4.0, 8.0], last, last, 0.5) == (6.0, 0.0, 3)
    assert window_return([2.0, 4.0, 8.0], [False] * 3, last, 0.5) == (6.0, 0.125, 3)


def test_a_termination_of_the_next_episode_does_not_end_a_truncated_one():
    terminated, last = [False, False, False, True], [False, True, False, True]
    assert window_return([2.0, 4.0, 8.0, 16.0], terminated, last, 0.5) == (4.0, 0.25, 2)


@pytest.mark.parametrize(
    ("gamma", "continuing", "truncated", "terminated"),
    [
        (0.0, (2.0, 0.0, 3), (2.0, 0.0, 2), (2.0, 0.0, 2)),  # 0^0 = 1: the first reward counts in full
        (1.0, (14.0, 1.0, 3), (6.0, 1.0, 2), (6.0, 0.0, 2)),
    ],
)
def test_gamma_may_be_0_or_1(gamma, continuing, truncated, terminated):
    reward, never, end = [2.0, 4.0, 8.0], [False] * 3, [False, True, False]
    assert window_return(reward, never, never, gamma) == continuing
    assert window_return(reward, never, end, gamma) == truncated
    assert window_return(reward, end, end, gamma) == terminated


@with_and_without_jit
def test_a_window_of_one_step_is_the_plain_transition(transform):
    assert window_return([3.0], [False], [False], 0.5, transform) == (3.0, 0.5, 1)
    assert window_return([3.0], [False], [True], 0.5, transform) == (3.0, 0.5, 1)
    assert window_return([3.0], [True], [True], 0.5, transform) == (3.0, 0.0, 1)


@pytest.mark.parametrize("n_steps", [1, 2, 5, 8])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99, 1.0])
def test_random_windows_agree_with_a_loop(n_steps, gamma):
    rng = np.random.default_rng(n_steps)
    reward = rng.normal(size=(300, n_steps)).astype(np.float32)
    last = rng.random((300, n_steps)) < 0.3
    terminated = (last & (rng.random((300, n_steps)) < 0.5)) | (rng.random((300, n_steps)) < 0.1)  # also lost lives
    returns, discounts, steps = jax.jit(jax.vmap(partial(n_step_return, gamma=gamma)))(reward, terminated, last)
    expected = [brute_force(*window, gamma) for window in zip(reward, terminated, last, strict=True)]
    expected_returns, expected_discounts, expected_steps = zip(*expected, strict=True)
    np.testing.assert_array_equal(steps, expected_steps)
    np.testing.assert_array_equal(discounts, np.float32(expected_discounts))
    # A sum of 8 float32 terms of size about 1, which may cancel: a few roundings of 6e-8 each.
    np.testing.assert_allclose(returns, expected_returns, rtol=0, atol=2e-6)


@with_and_without_jit
def test_a_lost_life_ends_the_window_although_the_episode_continues(transform):
    # The second step terminates and no observation is the last one: later rewards belong to the next life.
    terminated, never = [False, True, False, False], [False] * 4
    assert window_return([2.0, 4.0, 8.0, 16.0], terminated, never, 0.5, transform) == (4.0, 0.0, 2)
    # The window that starts with the next life does not contain the previous one.
    assert window_return([8.0, 16.0], [False, False], [False, False], 0.5, transform) == (16.0, 0.25, 2)
    # A life is lost in the first step, and the episode ends later in the window.
    assert window_return([2.0, 4.0, 8.0], [True, False, False], [False, False, True], 0.5, transform) == (2.0, 0.0, 1)
