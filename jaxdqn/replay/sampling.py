"""Draw rows uniformly over those that can start a window."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key


def draw_uniform(key: Key[Array, ""], candidates: Bool[Array, "L N"], count: int) -> Int[Array, " count"]:
    """Draw rows `slot * N + env` uniformly over the candidates, of which there must be one.

    Draws a rank, and finds the row that has it. The key is consumed.
    """
    cumulative = jnp.cumsum(candidates.sum(axis=1, dtype=jnp.int32))  # candidates up to each slot
    rank = uniform_below(key, count, cumulative[-1])
    slot = jnp.searchsorted(cumulative, rank, side="right", method="scan_unrolled").astype(jnp.int32)
    offset = rank - jnp.where(slot > 0, cumulative[slot - 1], 0)
    env = (jnp.cumsum(candidates[slot], axis=1, dtype=jnp.int32) <= offset[:, None]).sum(axis=1, dtype=jnp.int32)
    return slot * candidates.shape[1] + env


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
