"""Replay against a brute-force model, which has the whole history of every environment but sees only the last slots.

Every frame contains (environment + 1, time + 1), so a batch can be traced back to its rows; 0 is not a frame."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from histories import history_of, random_history
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdqn.preprocessing import push_frame
from jaxdqn.replay.ring import make_replay
from jaxdqn.replay.sampling import uniform_below
from jaxdqn.types import Batch

pytestmark = pytest.mark.usefixtures("strict_promotion")

# capacity, num_envs, n_steps, stack, gamma. Rewards are whole numbers and gammas 0, 1/2 or 1: returns are exact.
# The first three are the smallest rings that make_replay accepts; two capacities are not multiples of num_envs.
CONFIGS = [
    (3, 1, 1, 1, 0.5),
    (16, 2, 3, 4, 0.5),
    (9, 1, 5, 3, 1.0),
    (23, 2, 5, None, 0.5),
    (32, 3, 2, 2, 0.0),
    (36, 3, 4, 4, 0.5),
]
SAMPLES = 1024  # from at most 24 rows that can start: one is never drawn with probability 24 (23 / 24)^1024 < 1e-17


@lru_cache  # so that jit compiles each ring once
def tiny_replay(capacity, num_envs, n_steps, stack, gamma):
    sizes = {"capacity": capacity, "num_envs": num_envs, "n_steps": n_steps, "stack": stack, "gamma": gamma}
    return make_replay(**sizes, obs_shape=(1, 2), obs_dtype=jnp.uint8, batch_shape=(2, SAMPLES // 2))


def image_replay(**changes):
    sizes = {"capacity": 100_000, "num_envs": 8, "n_steps": 5, "stack": 4, "gamma": 0.99, "batch_shape": (32,)}
    return make_replay(**({"obs_shape": (64, 64), "obs_dtype": jnp.uint8} | sizes | changes))


def feed(replay, history, lengths):
    """Yield the state and the number of added rows, at the start and after each part of the history."""
    state, added = replay.init(), 0
    yield state, added
    for length in lengths:
        state = replay.add(state, jax.tree.map(lambda x, a=added, b=added + length: x[a:b], history))
        added += length
        yield state, added


def draw(replay, state, seed=0):
    batch = jax.device_get(replay.sample(state, jax.random.key(seed)).batch)
    return jax.tree.map(lambda x: x.reshape(SAMPLES, *x.shape[2:]), batch)


def ids_of(obs, stack):
    """Return the environments and times [B, K] of the frames in a batch of observations."""
    return np.moveaxis(obs.reshape(len(obs), 2, stack or 1).astype(int), 1, 0) - 1


def starts_of(batch, stack):
    return list(map(tuple, ids_of(batch.obs, stack)[::-1, :, -1].T.tolist()))  # (time, env) of the newest frame


def stack_times(history, t, env, stack):
    times = [t]
    while len(times) < (stack or 1):
        times.insert(0, times[0] - (history.episode_step[times[0], env] > 0))
    return times


def model(history, added, capacity, num_envs, n_steps, stack, gamma):
    """Return the expected transition of each (time, env) that can start a window."""

    def stacked(t, env):
        frames = history.obs[stack_times(history, t, env, stack), env]
        return frames[0] if stack is None else np.moveaxis(frames, 0, -1)

    windows, oldest = {}, max(0, added - capacity // num_envs)
    for t, env in np.ndindex(added, num_envs):
        visible = stack_times(history, t, env, stack)[0] >= oldest and t + n_steps < added
        if visible and not history.last[t, env]:
            k = next((i for i in range(1, n_steps) if history.last[t + i, env]), n_steps)
            reward = sum(gamma**i * history.reward[t + i, env] for i in range(k))
            discount = 0.0 if history.terminated[t + k - 1, env] else gamma**k
            windows[t, env] = Batch(stacked(t, env), history.action[t, env], reward, discount, stacked(t + k, env))
    return windows


@settings(derandomize=True, deadline=None)
@given(
    config=st.sampled_from(CONFIGS),
    shares=st.lists(st.sampled_from(["1", "all but 1"]), min_size=6, max_size=14),
    longest=st.sampled_from([1, 3, 12]),
    seed=st.integers(0, 2**16),
)
def test_samples_are_exactly_the_windows_of_the_model(config, shares, longest, seed):
    lengths = [1 if share == "1" else config[0] // config[1] - 1 for share in shares]
    replay, history = tiny_replay(*config), random_history(config[1], sum(lengths), longest, seed)
    for state, added in feed(replay, history, lengths):
        windows = model(history, added, *config)
        assert bool(replay.can_sample(state)) == bool(windows)
        if windows:
            batch = draw(replay, state, seed)
            starts = starts_of(batch, config[3])
            assert set(starts) == set(windows)
            for name, got, want in zip(Batch._fields, batch, zip(*map(windows.get, starts), strict=True), strict=True):
                np.testing.assert_array_equal(got, np.array(want), err_msg=name)


@pytest.mark.parametrize("config", CONFIGS)
def test_no_window_crosses_an_episode_an_environment_or_the_cursor(config):
    replay, history = tiny_replay(*config), random_history(config[1], 40, longest=4)
    episode = np.cumsum(history.episode_step == 0, axis=0)
    for state, added in feed(replay, history, [1] * 40):
        if replay.can_sample(state):
            batch = draw(replay, state)
            env, time = np.concatenate([ids_of(batch.obs, config[3]), ids_of(batch.next_obs, config[3])], axis=-1)
            assert (env == env[:, :1]).all()
            assert (episode[time, env] == episode[time, env][:, :1]).all()
            assert added - config[0] // config[1] <= time.min() <= time.max() < added


def test_sampled_stacks_equal_those_that_the_agent_saw():
    replay, history = tiny_replay(*CONFIGS[5]), random_history(3, 35, longest=4)
    seen = [np.zeros((3, 1, 2, 4), np.uint8)]
    for frame, step in zip(history.obs, history.episode_step, strict=True):
        seen.append(push_frame(seen[-1], frame, step == 0))
    *_, (state, _) = feed(replay, history, [11, 11, 11, 1, 1])
    for stacks in draw(replay, state)[::4]:  # obs and next_obs
        env, time = ids_of(stacks, 4)[..., -1]
        np.testing.assert_array_equal(stacks, np.array(seen)[time + 1, env])


def test_sampling_is_uniform_over_the_rows_that_can_start_a_window():
    # 14 rows in 12 slots leave times 2..13, and 4 rows follow a start: 2..9. Episodes end at 2, 4, 9, 13 in environment
    # 0, never in 1 and at 5 in 2; unless its episode starts there, a row needs the 3 rows before it: 5..9.
    starts = [(t, 0) for t in (3, 5, 6, 7, 8)] + [(t, 1) for t in (5, 6, 7, 8, 9)] + [(t, 2) for t in (6, 7, 8, 9)]
    columns = [[(2, True), (1, True), (4, False), (3, True)], [(20, True)], [(5, False), (20, True)]]
    replay = tiny_replay(*CONFIGS[5])
    *_, (state, _) = feed(replay, history_of(columns, 14), [11, 1, 1, 1])
    sampled = [start for seed in range(14) for start in starts_of(draw(replay, state, seed), 4)]
    counts = np.array([sampled.count(start) for start in starts])
    assert counts.sum() == 14 * SAMPLES
    # Pearson's statistic of 14 rows exceeds 34.5 once in 1000 keys; one row drawn twice as often makes it 800.
    assert np.sum((counts - SAMPLES) ** 2 / SAMPLES) < 34.5


def test_batches_have_the_batch_shape_and_depend_on_the_key():
    replay = tiny_replay(*CONFIGS[5])
    *_, (state, _) = feed(replay, random_history(3, 11, longest=4), [11])
    one, same, other = (replay.sample(state, jax.random.key(seed)).batch for seed in (0, 0, 1))
    assert [x.shape for x in jax.tree.leaves(one)] == [
        (2, 512, 1, 2, 4),
        (2, 512),
        (2, 512),
        (2, 512),
        (2, 512, 1, 2, 4),
    ]
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(same)))
    assert not np.array_equal(one.obs, other.obs)
    assert not np.array_equal(one.obs[0], one.obs[1])


def test_add_writes_in_place_also_when_the_ring_wraps():
    states = feed(tiny_replay(*CONFIGS[5]), random_history(3, 35, longest=4), [11, 11, 11, 1, 1])
    assert len({tuple(x.unsafe_buffer_pointer() for x in jax.tree.leaves(state.rows)) for state, _ in states}) == 1


def test_one_add_can_fill_the_ring_and_more_rows_are_refused():
    replay, history = tiny_replay(*CONFIGS[0]), random_history(1, 5, longest=4)
    *_, (state, _) = feed(replay, history, [2, 3])
    np.testing.assert_array_equal(state.rows.obs[:, 0, 0, 1], [4, 5, 3])  # slot 2 was next
    with pytest.raises(ValueError, match=r"4 rows .* 3 slots"):
        replay.add(state, jax.tree.map(lambda x: x[:4], history))


@pytest.mark.parametrize(("config", "smallest"), [(CONFIGS[0], 3), (CONFIGS[1], 16), (CONFIGS[2], 9)])
def test_the_smallest_capacity_is_named_and_can_always_be_sampled_once_full(config, smallest):
    with pytest.raises(ValueError, match=rf"capacity {smallest - 1} is too small.* at least {smallest}$"):
        tiny_replay(smallest - 1, *config[1:])
    replay, history = tiny_replay(*config), random_history(config[1], 60, longest=2)
    assert all(replay.can_sample(state) for state, added in feed(replay, history, [1] * 60) if added >= 9)  # full


def test_a_ring_that_does_not_fit_is_refused_before_it_is_allocated():
    # A row is 64 * 64 + 14 bytes, 8 environments' 32,880; 304 times that and two counters of 4 bytes fit 10 MB.
    arrays = len(jax.live_arrays())
    with pytest.raises(ValueError, match=r"needs 411,000,008 bytes .* 10,000,000 are free: .* 2432$"):
        image_replay(bytes_available=10_000_000)
    with pytest.raises(ValueError, match=r"2432$"):
        image_replay(capacity=10**15, bytes_available=10_000_000)  # no machine could allocate this
    assert len(jax.live_arrays()) == arrays
    assert image_replay(capacity=2432, bytes_available=10_000_000).num_bytes == 304 * 32_880 + 8


def test_100_000_images_take_at_most_430_mb_and_fit_in_exactly_their_size():
    assert image_replay(bytes_available=411_000_008).num_bytes == 411_000_008 <= 430e6
    with pytest.raises(ValueError, match=r"99992$"):
        image_replay(bytes_available=411_000_007)


def test_num_bytes_equals_the_size_of_the_state():
    for sizes in ({}, {"obs_shape": (3,), "obs_dtype": jnp.float32, "stack": None}):
        replay = image_replay(capacity=107, **sizes)  # 13 slots of 8
        assert replay.num_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(replay.init()))


@pytest.mark.parametrize("bound", [1, 7, 65_535, 65_536, 100_001, 2**31 - 1])
def test_uniform_below_returns_the_exact_upper_half_of_the_product(bound):
    key = jax.random.key(3)
    bits = np.asarray(jax.random.bits(key, (5_000,), jnp.uint32)).astype(object)
    ranks = np.asarray(jax.jit(uniform_below, static_argnums=1)(key, 5_000, jnp.int32(bound)))
    assert ranks.tolist() == [int(x) * bound >> 32 for x in bits]
