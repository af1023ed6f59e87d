"""Uniform replay: a ring of rows that holds every frame once and rebuilds stacks and n-step windows from them.

    slot           0     1     2     3     4     5     6     7
    episode_step   6     7     0     1     2     3     4     5      one environment's column of the ring
    last           .     x     .     .     .     .     .     .
                   newest ^    ^ cursor: the next row goes here, so slot 2 is the oldest
                               |--- stack ----t                    t is slot 5
                   ----| next_obs             |------------ window of 3 steps: the rows of slots 5, 6 and 7

A row can be the start of a window if its stack does not look back past the oldest row, `n_steps` rows have come after
it, and it is not the final observation of an episode. Only such rows are sampled: no window is cut at the cursor, and
none mixes episodes or environments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Int, Key, Shaped

from jaxdqn.preprocessing import join_frames
from jaxdqn.returns import NStepReturn, n_step_return
from jaxdqn.types import Batch, Rows


class ReplayState(NamedTuple):
    """The ring: `L = capacity // num_envs` slots of rows, of which `size` are filled.

    Attributes:
        rows: Rows `[L, N, ...]`.
        cursor: Slot of the next row, int32.
        size: Number of filled slots, int32.
    """

    rows: Rows
    cursor: Int[Array, ""]
    size: Int[Array, ""]


class Replay(NamedTuple):
    """Pure functions over one `ReplayState`, made by `make_replay`.

    Attributes:
        init: `() -> state`: an empty ring, all zeros.
        add: `(state, rows [T, N, ...]) -> state`; donates `state` and writes in place.
        sample: `(state, key) -> batch`, leaves shaped `[*batch_shape, ...]`; the key is consumed. Requires
            `can_sample`: otherwise the result is not a valid transition.
        can_sample: `(state) -> bool array`: whether any row can start a window.
        num_bytes: Size of the state in bytes.
    """

    init: Callable[[], ReplayState]
    add: Callable[[ReplayState, Rows], ReplayState]
    sample: Callable[[ReplayState, Key[Array, ""]], Batch]
    can_sample: Callable[[ReplayState], Bool[Array, ""]]
    num_bytes: int


def row_bytes(obs_shape: tuple[int, ...], obs_dtype: DTypeLike) -> int:
    """Return the bytes of one row: the observation, action, reward, two flags and the step's index."""
    return prod(obs_shape) * jnp.dtype(obs_dtype).itemsize + 4 + 4 + 1 + 1 + 4


def smallest_slots(n_steps: int, stack: int) -> int:
    """Return the number of slots with which a full ring can always be sampled: a stack, a window, and one more.

    Of any two neighbouring rows at least one is not a final observation.
    """
    return stack + n_steps + 1


def check_fits(
    capacity: int,
    num_envs: int,
    bytes_per_row: int,
    bytes_available: int,
    smallest: int = 1,
    storage: str = "memory",
    copies: int = 1,
) -> None:
    """Raise `ValueError` with the largest capacity that fits, if rows need more bytes than are available.

    If not even `smallest` rows fit, the message asks to free some `storage`. There are `copies` rings, one for each
    seed that is trained side by side.
    """
    num_bytes = copies * (capacity // num_envs * num_envs * bytes_per_row + 8)
    if num_bytes <= bytes_available:
        return
    largest = max(bytes_available // copies - 8, 0) // (bytes_per_row * num_envs) * num_envs
    remedy = f"the largest that fits is {largest}" if largest >= smallest else f"free some {storage}"
    seeds = f" of {copies} seeds" if copies > 1 else ""
    raise ValueError(
        f"capacity {capacity} needs {num_bytes:,} bytes of replay{seeds} and {bytes_available:,} are free: {remedy}"
    )


def uniform_below(key: Key[Array, ""], size: int, bound: Int[Array, ""]) -> Int[Array, " size"]:
    """Draw `size` integers from 0 to `bound - 1`, int32: the upper half of 32 random bits times `bound`.

    The probabilities of two integers differ by a relative error below `bound / 2**32`. Takes half the time of
    `jax.random.randint`, which draws twice as many bits from two more keys. The key is consumed.

    References:
        Lemire, Fast Random Integer Generation in an Interval (2019), without its rejections.
    """
    bits, bound = jax.random.bits(key, (size,), jnp.uint32), bound.astype(jnp.uint32)
    # JAX has no 64-bit integers by default: multiply 16-bit halves and add the carry of the lower three products.
    high, low, bound_high, bound_low = bits >> 16, bits & 0xFFFF, bound >> 16, bound & 0xFFFF
    crossed = (high * bound_low, low * bound_high)
    carried = (crossed[0] & 0xFFFF) + (crossed[1] & 0xFFFF) + (low * bound_low >> 16)
    upper = high * bound_high + (crossed[0] >> 16) + (crossed[1] >> 16) + (carried >> 16)
    return upper.astype(jnp.int32)


def make_replay(
    *,
    capacity: int,
    num_envs: int,
    obs_shape: tuple[int, ...],
    obs_dtype: DTypeLike,
    batch_shape: tuple[int, ...],
    n_steps: int,
    gamma: float,
    stack: int | None = None,
    returns: NStepReturn = n_step_return,
    bytes_available: int | None = None,
) -> Replay:
    """Make the functions of a ring with these sizes.

    Args:
        capacity: Rows over all environments; rounded down to a multiple of `num_envs`.
        num_envs: Number of environments, stepped in lockstep.
        obs_shape: Shape of one observation (one frame).
        obs_dtype: Dtype of an observation, `uint8` for pixels.
        batch_shape: Leading shape of a sample, for example `(updates, batch_size)`.
        n_steps: Largest number of steps in a window.
        gamma: Discount per step.
        stack: Frames per stack, along their channels `[H, W, stack * C]` or a new last axis; None: no stacking.
        returns: Reward, discount and length of a window. See `n_step_return`.
        bytes_available: Memory that the ring may use; None: no check.

    Raises:
        ValueError: If the ring is too small for one window or does not fit in memory; before anything is allocated.

    References:
        Lin, Self-improving reactive agents based on reinforcement learning, planning and teaching (1992); Mnih et
        al. (2015), who keep each frame once.
    """
    sizes = {"capacity": capacity, "num_envs": num_envs, "n_steps": n_steps, "stack": 1 if stack is None else stack}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} {size} must be at least 1")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma {gamma} must be between 0 and 1")
    slots = capacity // num_envs
    stack_size = sizes["stack"]
    smallest = smallest_slots(n_steps, stack_size)
    if slots < smallest:
        raise ValueError(
            f"capacity {capacity} is too small: {num_envs} environments with n_steps {n_steps} and "
            f"{stack_size}-frame stacks need at least {smallest * num_envs}"
        )
    bytes_per_row = row_bytes(obs_shape, obs_dtype)
    num_bytes = slots * num_envs * bytes_per_row + 8
    if bytes_available is not None:
        check_fits(capacity, num_envs, bytes_per_row, bytes_available, smallest * num_envs)

    def init() -> ReplayState:
        shape = (slots, num_envs)
        rows = Rows(
            obs=jnp.zeros((*shape, *obs_shape), obs_dtype),
            action=jnp.zeros(shape, jnp.int32),
            reward=jnp.zeros(shape, jnp.float32),
            terminated=jnp.zeros(shape, bool),
            last=jnp.zeros(shape, bool),
            episode_step=jnp.zeros(shape, jnp.int32),
        )
        return ReplayState(rows=rows, cursor=jnp.zeros((), jnp.int32), size=jnp.zeros((), jnp.int32))

    def add(state: ReplayState, rows: Rows) -> ReplayState:
        length, width = rows.action.shape
        if width != num_envs:
            raise ValueError(f"rows of {width} environments do not fit a ring of num_envs {num_envs}")
        if length > slots:
            raise ValueError(f"{length} rows per environment do not fit {slots} slots: add fewer at a time")
        written = (state.cursor + jnp.arange(length)) % slots
        return ReplayState(
            rows=jax.tree.map(lambda ring, new: ring.at[written].set(new, unique_indices=True), state.rows, rows),
            cursor=(state.cursor + length) % slots,
            size=jnp.minimum(state.size + length, slots),
        )

    def can_start(state: ReplayState) -> Bool[Array, "L N"]:
        age = (jnp.arange(slots) - state.cursor + state.size) % slots  # 0 is the oldest row, size - 1 the newest
        lookback = jnp.minimum(state.rows.episode_step, stack_size - 1)
        inside = (age[:, None] >= lookback) & (age[:, None] + n_steps < state.size)
        return inside & ~state.rows.last

    def can_sample(state: ReplayState) -> Bool[Array, ""]:
        return can_start(state).any()

    def sample(state: ReplayState, key: Key[Array, ""]) -> Batch:
        # Uniform over the rows that can start a window: draw a rank, find the row that has it.
        candidates = can_start(state)
        cumulative = jnp.cumsum(candidates.sum(axis=1, dtype=jnp.int32))  # candidates up to each slot
        rank = uniform_below(key, prod(batch_shape), cumulative[-1])
        slot = jnp.searchsorted(cumulative, rank, side="right", method="scan_unrolled").astype(jnp.int32)
        offset = rank - jnp.where(slot > 0, cumulative[slot - 1], 0)
        env = (jnp.cumsum(candidates[slot], axis=1, dtype=jnp.int32) <= offset[:, None]).sum(axis=1, dtype=jnp.int32)
        windows = jax.vmap(partial(window, state.rows))(slot, env)
        return jax.tree.map(lambda x: x.reshape(*batch_shape, *x.shape[1:]), windows)

    def window(rows: Rows, slot: Int[Array, ""], env: Int[Array, ""]) -> Batch:
        ahead = (slot + jnp.arange(n_steps)) % slots
        reward, discount, steps = returns(
            rows.reward[ahead, env], rows.terminated[ahead, env], rows.last[(ahead + 1) % slots, env], gamma
        )
        return Batch(
            obs=stacked(rows, slot, env),
            action=rows.action[slot, env],
            reward=reward,
            discount=discount,
            next_obs=stacked(rows, (slot + steps) % slots, env),
        )

    def stacked(rows: Rows, slot: Int[Array, ""], env: Int[Array, ""]) -> Shaped[Array, "*obs"]:
        # Flat indices that are always in bounds, so that XLA moves the many bytes without checking indices.
        frames = rows.obs.reshape(slots * num_envs, *obs_shape).at
        if stack is None:
            return frames[slot * num_envs + env].get(mode="promise_in_bounds")
        # Before the start of an episode its first frame is repeated, as it is when the agent acts.
        back = jnp.minimum(jnp.arange(stack - 1, -1, -1), rows.episode_step[slot, env])
        indices = (slot - back) % slots * num_envs + env
        return join_frames(frames[indices].get(mode="promise_in_bounds"), len(obs_shape))

    return Replay(
        init=init,
        add=jax.jit(add, donate_argnums=0),
        sample=jax.jit(sample),
        can_sample=jax.jit(can_sample),
        num_bytes=num_bytes,
    )
