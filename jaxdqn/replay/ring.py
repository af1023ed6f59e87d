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
from jaxdqn.replay.capacity import check_fits, check_large_enough, row_bytes, smallest_slots
from jaxdqn.replay.sampling import draw_places
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
    check_large_enough(capacity, num_envs, n_steps, stack)
    slots = capacity // num_envs
    bytes_per_row = row_bytes(obs_shape, obs_dtype)
    if bytes_available is not None:
        check_fits(
            capacity,
            num_envs=num_envs,
            bytes_per_row=bytes_per_row,
            bytes_available=bytes_available,
            smallest=smallest_slots(n_steps, stack) * num_envs,
        )
    starts = partial(can_start, n_steps=n_steps, stack=stack)
    window = partial(read_window, n_steps=n_steps, gamma=gamma, stack=stack, returns=returns)

    def sample(state: ReplayState, key: Key[Array, ""]) -> Batch:
        slot, env = draw_places(key, starts(state), prod(batch_shape))
        windows = jax.vmap(partial(window, state.rows))(slot, env)
        return jax.tree.map(lambda x: x.reshape(*batch_shape, *x.shape[1:]), windows)

    def can_sample(state: ReplayState) -> Bool[Array, ""]:
        return starts(state).any()

    return Replay(
        init=partial(empty_ring, slots, num_envs, obs_shape, obs_dtype),
        add=jax.jit(add_rows, donate_argnums=0),
        sample=jax.jit(sample),
        can_sample=jax.jit(can_sample),
        num_bytes=slots * num_envs * bytes_per_row + 8,
    )


def empty_ring(slots: int, num_envs: int, obs_shape: tuple[int, ...], obs_dtype: DTypeLike) -> ReplayState:
    """Return a ring without rows, all zeros."""
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


def add_rows(state: ReplayState, rows: Rows) -> ReplayState:
    """Write rows `[T, N, ...]` at the cursor, over the oldest ones if the ring is full.

    Raises:
        ValueError: If there are more rows than slots, or of another number of environments.
    """
    (slots, num_envs), (length, width) = state.rows.action.shape, rows.action.shape
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


def can_start(state: ReplayState, *, n_steps: int, stack: int | None) -> Bool[Array, "L N"]:
    """Return which rows can start a window of `n_steps` steps."""
    slots = state.rows.action.shape[0]
    age = (jnp.arange(slots) - state.cursor + state.size) % slots  # 0 is the oldest row, size - 1 the newest
    lookback = jnp.minimum(state.rows.episode_step, (stack or 1) - 1)
    inside = (age[:, None] >= lookback) & (age[:, None] + n_steps < state.size)
    return inside & ~state.rows.last


def read_window(
    rows: Rows,
    slot: Int[Array, ""],
    env: Int[Array, ""],
    *,
    n_steps: int,
    gamma: float,
    stack: int | None,
    returns: NStepReturn,
) -> Batch:
    """Return the transition of up to `n_steps` steps that starts at one row; requires `can_start`."""
    slots = rows.action.shape[0]
    ahead = (slot + jnp.arange(n_steps)) % slots
    reward, discount, steps = returns(
        rows.reward[ahead, env], rows.terminated[ahead, env], rows.last[(ahead + 1) % slots, env], gamma
    )
    return Batch(
        obs=read_stack(rows, slot, env, stack),
        action=rows.action[slot, env],
        reward=reward,
        discount=discount,
        next_obs=read_stack(rows, (slot + steps) % slots, env, stack),
    )


def read_stack(rows: Rows, slot: Int[Array, ""], env: Int[Array, ""], stack: int | None) -> Shaped[Array, "*obs"]:
    """Return the observation of one row, with the frames before it if `stack` is given.

    Before the start of an episode its first frame is repeated, as it is when the agent acts.
    """
    (slots, num_envs), obs_shape = rows.obs.shape[:2], rows.obs.shape[2:]
    # Flat indices that are always in bounds, so that XLA moves the many bytes without checking indices.
    frames = rows.obs.reshape(slots * num_envs, *obs_shape).at
    if stack is None:
        return frames[slot * num_envs + env].get(mode="promise_in_bounds")
    back = jnp.minimum(jnp.arange(stack - 1, -1, -1), rows.episode_step[slot, env])
    indices = (slot - back) % slots * num_envs + env
    return join_frames(frames[indices].get(mode="promise_in_bounds"), len(obs_shape))
