"""Replay: a ring of rows that holds every frame once and rebuilds stacks and n-step windows from them.

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
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Key

from jaxdqn.replay.capacity import check_fits, check_large_enough, row_bytes, smallest_slots
from jaxdqn.replay.priorities import Priorities, draw_prioritized, move_priorities, no_priorities, set_priorities
from jaxdqn.replay.sampling import draw_uniform
from jaxdqn.replay.windows import read_window
from jaxdqn.returns import NStepReturn, n_step_return
from jaxdqn.types import Rows, Sample


class ReplayState(NamedTuple):
    """The ring: `L = capacity // num_envs` slots of rows, of which `size` are filled.

    Attributes:
        rows: Rows `[L, N, ...]`.
        cursor: Slot of the next row, int32.
        size: Number of filled slots, int32.
        priorities: Of the rows that can start a window; None: sampling is uniform.
    """

    rows: Rows
    cursor: Int[Array, ""]
    size: Int[Array, ""]
    priorities: Priorities | None = None


class Replay(NamedTuple):
    """Pure functions over one `ReplayState`, made by `make_replay`.

    Attributes:
        init: `() -> state`: an empty ring, all zeros.
        add: `(state, rows [T, N, ...]) -> state`; donates `state` and writes in place.
        sample: `(state, key, beta=1.0) -> Sample`, leaves shaped `[*batch_shape, ...]`; the key is consumed. Requires
            `can_sample`: otherwise the result is not a valid transition. `beta` is the exponent of importance weights,
            which are 1 if sampling is uniform.
        update_priorities: `(state, index, priority) -> state`: gives rows of a sample new priorities, before other rows
            are added; the identity if sampling is uniform. See `priorities.set_priorities`.
        can_sample: `(state) -> bool array`: whether any row can start a window.
        num_bytes: Size of the state in bytes.
    """

    init: Callable[[], ReplayState]
    add: Callable[[ReplayState, Rows], ReplayState]
    sample: Callable[..., Sample]
    update_priorities: Callable[[ReplayState, Int[Array, "*B"], Float[Array, "*B"]], ReplayState]
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
    priority_alpha: float | None = None,
    num_actions: int | None = None,
    bytes_available: int | None = None,
    axis_name: str | None = None,
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
        priority_alpha: Exponent of priorities, in [0, 1]; None: sampling is uniform.
        num_actions: Number of actions if rows have masks of the allowed ones; None: they have none.
        bytes_available: Memory that the ring may use; None: no check.
        axis_name: Mapped axis, if each device has a ring of its own and a part of each batch. See `draw_prioritized`.

    Raises:
        ValueError: If `priority_alpha` is not in [0, 1], or the ring is too small for one window or does not fit in
            memory; before anything is allocated.

    References:
        Lin, Self-improving reactive agents based on reinforcement learning, planning and teaching (1992); Mnih et
        al. (2015), who keep each frame once; Schaul et al., Prioritized Experience Replay (2016).
    """
    sizes = {"capacity": capacity, "num_envs": num_envs, "n_steps": n_steps, "stack": 1 if stack is None else stack}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} {size} must be at least 1")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma {gamma} must be between 0 and 1")
    if priority_alpha is not None and not 0 <= priority_alpha <= 1:  # above 1, weights of small errors round to 0
        raise ValueError(f"priority_alpha {priority_alpha} must be between 0 and 1")
    check_large_enough(capacity, num_envs, n_steps, stack)
    slots = capacity // num_envs
    bytes_per_row = row_bytes(obs_shape, obs_dtype, prioritized=priority_alpha is not None, num_actions=num_actions)
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

    def sample(state: ReplayState, key: Key[Array, ""], beta: Float[Array, ""] | float = 1.0) -> Sample:
        count = prod(batch_shape)
        if state.priorities is None:
            index, weight = draw_uniform(key, starts(state), count), jnp.ones(count, jnp.float32)
        else:
            index, weight = draw_prioritized(key, state.priorities, count, beta, axis_name=axis_name)
        batch = jax.vmap(partial(window, state.rows))(index // num_envs, index % num_envs)
        return jax.tree.map(lambda x: x.reshape(*batch_shape, *x.shape[1:]), Sample(batch, index, weight))

    def add(state: ReplayState, rows: Rows) -> ReplayState:
        added = add_rows(state, rows)
        if state.priorities is None or priority_alpha is None:
            return added
        written = (jnp.arange(slots) - state.cursor) % slots < rows.action.shape[0]
        moved = move_priorities(state.priorities, written[:, None], starts(added), alpha=priority_alpha)
        return added._replace(priorities=moved)

    def update_priorities(state: ReplayState, index: Int[Array, "*B"], priority: Float[Array, "*B"]) -> ReplayState:
        if state.priorities is None or priority_alpha is None:
            return state
        changed = set_priorities(state.priorities, index.reshape(-1), priority.reshape(-1), alpha=priority_alpha)
        return state._replace(priorities=changed)

    def can_sample(state: ReplayState) -> Bool[Array, ""]:
        return starts(state).any() if state.priorities is None else state.priorities.num_rows[0] > 0

    def init() -> ReplayState:
        ring = empty_ring(slots, num_envs, obs_shape, obs_dtype, num_actions)
        return ring if priority_alpha is None else ring._replace(priorities=no_priorities(slots * num_envs))

    return Replay(
        init=init,
        add=jax.jit(add, donate_argnums=0),
        sample=jax.jit(sample),
        update_priorities=update_priorities,
        can_sample=jax.jit(can_sample),
        num_bytes=slots * num_envs * bytes_per_row + 8,
    )


def empty_ring(
    slots: int, num_envs: int, obs_shape: tuple[int, ...], obs_dtype: DTypeLike, num_actions: int | None = None
) -> ReplayState:
    """Return a ring without rows, all zeros."""
    shape = (slots, num_envs)
    rows = Rows(
        obs=jnp.zeros((*shape, *obs_shape), obs_dtype),
        action=jnp.zeros(shape, jnp.int32),
        reward=jnp.zeros(shape, jnp.float32),
        terminated=jnp.zeros(shape, bool),
        last=jnp.zeros(shape, bool),
        episode_step=jnp.zeros(shape, jnp.int32),
        mask=None if num_actions is None else jnp.zeros((*shape, num_actions), bool),
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
    return state._replace(
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
