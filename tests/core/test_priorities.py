"""Prioritised replay against a NumPy model: which rows can be drawn, how often, and with which weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from histories import random_history
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdqn.replay.priorities import EPSILON, move_priorities, no_priorities, set_priorities
from jaxdqn.replay.ring import make_replay
from jaxdqn.types import Rows

pytestmark = pytest.mark.usefixtures("strict_promotion")
ALPHA = 0.6


def small_replay(capacity=24, num_envs=2, n_steps=2, stack=3, count=64, **options):
    return make_replay(
        capacity=capacity,
        num_envs=num_envs,
        obs_shape=(1, 2),
        obs_dtype=np.uint8,
        batch_shape=(2, count),
        n_steps=n_steps,
        gamma=0.5,
        stack=stack,
        priority_alpha=ALPHA,
        **options,
    )


REPLAY = small_replay()


def added(replay, state, history, start, stop):
    return replay.add(state, jax.tree.map(lambda x: x[start:stop], history))


def eligible(history, added_rows, slots, n_steps=2, stack=3):
    """Return the rows (index in the ring) that can start a window, by a loop over the newest `slots` rows."""
    oldest, num_envs = max(added_rows - slots, 0), history.last.shape[1]
    found = set()
    for t in range(oldest, added_rows):
        for env in range(num_envs):
            looks_back = min(int(history.episode_step[t, env]), stack - 1)
            if t - looks_back >= oldest and t + n_steps < added_rows and not history.last[t, env]:
                found.add(t % slots * num_envs + env)
    return found


def weights_of(state):
    return np.asarray(state.priorities.weights).reshape(-1)[:24]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    lengths=st.lists(st.integers(1, 5), min_size=4, max_size=10),
    priority=st.sampled_from([0.0, 1e-9, 1.0, 1e12]),
)
def test_only_rows_that_can_start_a_window_are_drawn_whatever_their_priority(seed, lengths, priority):
    rng, history = np.random.default_rng(seed), random_history(2, 60, longest=5)
    state, rows = REPLAY.init(), 0
    for length in lengths:
        state, rows = added(REPLAY, state, history, rows, rows + length), rows + length
        wanted = eligible(history, rows, slots=12)
        assert set(np.flatnonzero(weights_of(state))) == wanted
        assert int(state.priorities.num_rows[0]) == len(wanted)
        assert bool(REPLAY.can_sample(state)) == bool(wanted)
        np.testing.assert_allclose(state.priorities.sums, np.asarray(state.priorities.weights).sum(axis=1), rtol=1e-6)
        if not wanted:
            continue
        sample = REPLAY.sample(state, jax.random.key(seed % 1000 + rows))
        assert set(np.asarray(sample.index).reshape(-1)) <= wanted
        changed = rng.choice(24, 12)  # also rows that cannot start a window: those stay as they are
        new = rng.choice([0.0, priority, 1.0], 12).astype(np.float32)
        state = REPLAY.update_priorities(state, jnp.asarray(changed), jnp.asarray(new))
        assert set(np.flatnonzero(weights_of(state))) == wanted


def filled(seed=0):
    """Return a full ring with known priorities, and the priority of each row that can be drawn."""
    state = added(REPLAY, REPLAY.init(), random_history(2, 60, longest=5), 0, 12)
    rows = np.flatnonzero(weights_of(state))
    priority = np.random.default_rng(seed).exponential(size=len(rows)).astype(np.float32)
    state = REPLAY.update_priorities(state, jnp.asarray(rows), jnp.asarray(priority))
    return state, rows, priority


def test_rows_are_drawn_in_proportion_to_their_priority_to_the_power_of_alpha():
    state, rows, priority = filled()
    expected = priority**ALPHA / np.sum(priority**ALPHA)
    draws = np.concatenate([np.asarray(REPLAY.sample(state, jax.random.key(i)).index).reshape(-1) for i in range(782)])
    counts = np.bincount(draws, minlength=24)[rows]
    assert counts.sum() == len(draws) == 100_096
    statistic = np.sum((counts - len(draws) * expected) ** 2 / (len(draws) * expected))
    # Wilson and Hilferty's bound, which Pearson's statistic exceeds once in 10,000 keys.
    freedom = len(rows) - 1
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.72 * (2 / (9 * freedom)) ** 0.5) ** 3


def test_importance_weights_undo_the_bias_and_beta_0_leaves_it():
    state, rows, priority = filled()
    probability = (priority + EPSILON) ** ALPHA
    probability /= probability.sum()
    samples = [REPLAY.sample(state, jax.random.key(seed)) for seed in range(60)]
    drawn = np.concatenate([np.asarray(sample.index).reshape(-1) for sample in samples])
    weights = np.concatenate([np.asarray(sample.weight).reshape(-1) for sample in samples])
    weight_of = dict(zip(drawn, weights, strict=True))
    assert set(weight_of) == set(rows)
    np.testing.assert_allclose([weight_of[row] for row in rows], 1 / (len(rows) * probability), rtol=1e-4)
    # The expected weighted value of any function of rows is its uniform mean: sum_i P_i w_i f_i = mean f.
    values = np.random.default_rng(1).normal(size=len(rows))
    expected = sum(p * weight_of[row] * value for p, row, value in zip(probability, rows, values, strict=True))
    np.testing.assert_allclose(expected, values.mean(), rtol=1e-3)
    weight = np.asarray(samples[0].weight).reshape(-1)
    assert np.all(np.asarray(REPLAY.sample(state, jax.random.key(0), 0.0).weight) == 1)
    half = np.asarray(REPLAY.sample(state, jax.random.key(0), 0.5).weight).reshape(-1)
    np.testing.assert_allclose(half, weight**0.5, rtol=1e-4)


def test_new_rows_get_the_largest_priority_so_far_and_overwritten_ones_lose_theirs():
    history = random_history(2, 60, longest=5)
    state = added(REPLAY, REPLAY.init(), history, 0, 6)
    np.testing.assert_allclose(weights_of(state)[weights_of(state) > 0], (1 + EPSILON) ** ALPHA, rtol=1e-6)
    known = np.flatnonzero(weights_of(state))
    state = REPLAY.update_priorities(state, jnp.asarray(known[:2]), jnp.array([7.0, 0.25]))
    assert float(state.priorities.largest[0]) == 7.0
    state = added(REPLAY, state, history, 6, 8)
    fresh = sorted(set(np.flatnonzero(weights_of(state))) - set(known))
    np.testing.assert_allclose(weights_of(state)[fresh], 7.0**ALPHA, rtol=1e-4)
    np.testing.assert_allclose(weights_of(state)[known[1]], 0.25**ALPHA, rtol=1e-4)
    state = added(REPLAY, state, history, 8, 20)  # every slot is overwritten
    assert set(np.unique(weights_of(state).round(4))) <= {0.0, np.float32(7.0**ALPHA).round(4)}


def test_a_row_that_is_given_several_priorities_keeps_the_largest_and_others_are_unchanged():
    state, rows, _ = filled()
    before = weights_of(state)
    index = jnp.array([rows[0], rows[1], rows[0]])
    state = REPLAY.update_priorities(state, index, jnp.array([3.0, 2.0, 1.0]))
    expected = before.copy()
    expected[rows[:2]] = [3.0**ALPHA, 2.0**ALPHA]
    np.testing.assert_allclose(weights_of(state), expected, rtol=1e-4)


def test_a_row_among_a_million_is_drawn_as_often_as_its_priority_says():
    """A single float32 for both steps of the draw would draw some of these rows never, and others twice as often."""
    slots = 2**17
    replay = small_replay(capacity=slots * 8, num_envs=8, n_steps=1, stack=1, count=1024)
    numbers = np.arange(slots)
    shape = (slots, 8)
    rows = Rows(
        obs=np.zeros((*shape, 1, 2), np.uint8),
        action=np.zeros(shape, np.int32),
        reward=np.zeros(shape, np.float32),
        terminated=np.zeros(shape, bool),
        last=np.zeros(shape, bool),
        episode_step=np.broadcast_to(numbers[:, None], shape).astype(np.int32),
    )
    state = replay.add(replay.init(), rows)
    assert int(state.priorities.num_rows[0]) == (slots - 1) * 8
    sample = replay.sample(state, jax.random.key(0))
    index = np.asarray(sample.index).reshape(-1)
    assert index.max() < (slots - 1) * 8
    np.testing.assert_allclose(sample.weight, 1.0, rtol=1e-4)
    # Uniform over 128 places in a block: no place has more than 4.5 standard deviations above 16.
    assert np.bincount(index % 128, minlength=128).max() < 16 + 4.5 * 4


def test_the_sign_of_a_priority_is_ignored_and_what_is_not_finite_stays_visible():
    state = move_priorities(no_priorities(3), jnp.zeros((3, 1), bool), jnp.ones((3, 1), bool), alpha=ALPHA)
    index = jnp.arange(3)
    up, down = (set_priorities(state, index, sign * jnp.array([1.0, 2.0, 3.0]), alpha=ALPHA) for sign in (1, -1))
    jax.tree.map(np.testing.assert_array_equal, up, down)
    broken = set_priorities(state, index, jnp.array([1.0, jnp.nan, 3.0]), alpha=ALPHA)
    broken = set_priorities(broken, index, jnp.ones(3), alpha=ALPHA)
    assert np.isnan(broken.largest).all()


@pytest.mark.parametrize("alpha", [-1.0, 1.5])
def test_an_exponent_outside_0_to_1_is_refused(alpha):
    with pytest.raises(ValueError, match=rf"priority_alpha {alpha} must be between 0 and 1"):
        make_replay(
            capacity=24,
            num_envs=2,
            obs_shape=(1,),
            obs_dtype=np.float32,
            batch_shape=(1, 1),
            n_steps=1,
            gamma=0.5,
            priority_alpha=alpha,
        )
