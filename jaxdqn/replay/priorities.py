"""Prioritised replay: the priorities of a ring's rows, in blocks whose sums are known.

    weights [K, S]   priority ** alpha of each row, 0 if the row cannot start a window; rows in the order of the ring
    sums    [K]      of each block, computed again whenever a weight in the block changes: no error accumulates

A row is drawn in three steps, a group of blocks, a block in it and a row in that, each with a random number of its own:
with a single float32 for all, a row of a million would have one of eight values and be drawn with an error of several
per cent. Each step compares one row of 128 sums, which takes half the time of a search over the sums of all blocks.

References:
    Schaul et al., Prioritized Experience Replay (2016), sections 3.3 and 3.4.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

BLOCK = 128
"""Rows in a block."""

EPSILON = 1e-6
"""Added to a priority, so that a row whose error is 0 can be drawn again."""


class Priorities(NamedTuple):
    """The state of prioritised replay.

    Attributes:
        weights: `priority ** alpha` of each row, in blocks; 0 if a row cannot start a window, and it is never drawn.
        sums: Sum of each block.
        largest: Largest priority so far, at first 1: that of new rows. One for each device.
        num_rows: Number of rows that can start a window, int32. One for each device.
    """

    weights: Float[Array, "K S"]
    sums: Float[Array, " K"]
    largest: Float[Array, " D"]
    num_rows: Int[Array, " D"]


def no_priorities(num_rows: int) -> Priorities:
    """Return the priorities of a ring without rows."""
    blocks = -(-num_rows // BLOCK)
    return Priorities(jnp.zeros((blocks, BLOCK)), jnp.zeros(blocks), jnp.ones(1), jnp.zeros(1, jnp.int32))


def move_priorities(
    priorities: Priorities, written: Bool[Array, "L 1"], can_start: Bool[Array, "L N"], *, alpha: float
) -> Priorities:
    """Return the priorities after rows were added: rows that have become able to start a window get the largest.

    Args:
        priorities: Before rows were added.
        written: Slots that were overwritten.
        can_start: Rows that can start a window now.
        alpha: Exponent.
    """
    (blocks, size), num_rows = priorities.weights.shape, can_start.size
    weights = priorities.weights.reshape(-1)[:num_rows].reshape(can_start.shape)
    new = (priorities.largest[0] + EPSILON) ** alpha
    weights = jnp.where(can_start, jnp.where((weights > 0) & ~written, weights, new), 0.0)
    weights = jnp.pad(weights.reshape(-1), (0, blocks * size - num_rows)).reshape(blocks, size)
    return Priorities(weights, weights.sum(axis=1), priorities.largest, can_start.sum(dtype=jnp.int32)[None])


def draw_prioritized(
    key: Key[Array, ""],
    priorities: Priorities,
    count: int,
    beta: Float[Array, ""] | float,
    *,
    axis_name: str | None = None,
) -> tuple[Int[Array, " count"], Float[Array, " count"]]:
    """Draw rows in proportion to their weights, of which one must be above 0.

        P_i = weight_i / sum_j weight_j        importance weight = (N P_i) ** -beta

    Args:
        key: Random key, consumed.
        priorities: Of the rows.
        count: Number of rows to draw, with replacement.
        beta: Exponent, in [0, 1]; 1 undoes the bias of the draws.
        axis_name: Mapped axis of `D` devices, of which each draws from its own rows: `P_i` is divided by `D`, and `N`
            counts the rows of all.

    Returns:
        Rows `slot * num_envs + env`, int32, and their importance weights.
    """
    size = priorities.weights.shape[1]
    groups = jnp.pad(priorities.sums, (0, -priorities.sums.shape[0] % size)).reshape(-1, size)
    totals, chances = groups.sum(axis=1), jax.random.uniform(key, (3, count))
    group = pick(chances[0], jnp.broadcast_to(totals, (count, totals.shape[0])))
    block = group * size + pick(chances[1], groups[group])
    weights = priorities.weights[block]
    row = pick(chances[2], weights)
    probability = jnp.take_along_axis(weights, row[:, None], axis=1)[:, 0] / totals.sum()
    rows = priorities.num_rows[0]
    if axis_name is not None:
        rows, probability = jax.lax.psum(rows, axis_name), probability / jax.lax.psum(1, axis_name)
    weight = (rows.astype(jnp.float32) * probability) ** -jnp.asarray(beta, jnp.float32)
    return block * size + row, weight


def set_priorities(
    priorities: Priorities, index: Int[Array, " B"], priority: Float[Array, " B"], *, alpha: float
) -> Priorities:
    """Return the priorities after some rows were given new ones.

    A row that cannot start a window any more keeps the weight 0. A row that is given several priorities at once gets
    the largest, so that the result does not depend on the order in which a device writes.

    Args:
        priorities: Before.
        index: Rows `slot * num_envs + env`.
        priority: New priority of each; its sign is ignored.
        alpha: Exponent.
    """
    priority = jnp.abs(priority)
    block, row = index // priorities.weights.shape[1], index % priorities.weights.shape[1]
    known = priorities.weights[block, row] > 0
    new = jnp.where(known, (priority + EPSILON) ** alpha, 0.0)
    weights = priorities.weights.at[block, row].set(0.0).at[block, row].max(new)
    return priorities._replace(
        weights=weights,
        sums=priorities.sums.at[block].set(weights[block].sum(axis=1)),
        largest=jnp.maximum(priorities.largest, jnp.where(known, priority, 0.0).max()),
    )


def pick(chance: Float[Array, " B"], weights: Float[Array, "B K"]) -> Int[Array, " B"]:
    """Return, for each row of weights, the first index at which their sum is above a share `chance` of the total.

    Only an index whose weight is above 0 is returned, whatever is rounded; there must be one.
    """
    count = weights.shape[1]
    # A product with a triangle of ones: XLA's cumulative sum takes twice as long on the CPU.
    reached = jnp.matmul(weights, jnp.triu(jnp.ones((count, count))), precision=jax.lax.Precision.HIGHEST)
    above = (reached > (chance * reached[:, -1])[:, None]) & (weights > 0)
    last = count - 1 - jnp.argmax(weights[:, ::-1] > 0, axis=1)
    return jnp.where(above.any(axis=1), jnp.argmax(above, axis=1), last).astype(jnp.int32)
