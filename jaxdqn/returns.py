"""Returns of n steps, exact at termination and at truncation."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

NStepReturn = Callable[[Array, Array, Array, float], tuple[Array, Array, Array]]
"""`(reward [n], terminated [n], last [n], gamma) -> (return, discount, steps)`. See `n_step_return`."""


def n_step_return(
    reward: Float[Array, " n"],
    terminated: Bool[Array, " n"],
    last: Bool[Array, " n"],
    gamma: float,
) -> tuple[Float[Array, ""], Float[Array, ""], Int[Array, ""]]:
    """Return the reward, discount and length of one window of at most `n` steps.

    The window has the steps `t, ..., t+n-1` of one environment. It ends early if the episode ends, or if a step
    terminates and the episode continues, as after a lost life: later rewards do not depend on the first action.

        k = min(n, 1 + first i with terminated[i] or last[i])
        R = sum_{i<k} gamma^i reward[i]
        discount = gamma^k, or 0 if terminated[k-1]

    so that `R + discount * V(obs_{t+k})` is the target. A truncated window bootstraps from the true final
    observation `obs_{t+k}`; a terminated one does not bootstrap; an episode that is both counts as terminated.

    Args:
        reward: Rewards of the steps.
        terminated: Whether each step reached a state whose value is 0: a terminal state, or a lost life.
        last: Whether the observation *after* each step is the final one of its episode.
        gamma: Discount per step, in [0, 1].

    Returns:
        `R`, `discount` and `k` (int32, in 1..n).

    References:
        Sutton and Barto, Reinforcement Learning (2018), eq. 7.1; Pardo et al., Time Limits in Reinforcement
        Learning (2018), section 3.1, on why truncation bootstraps and termination does not.
    """
    still_in = jnp.cumprod(~(terminated | last))  # int: 1 as long as no step up to i has ended the window
    taken = jnp.concatenate([jnp.ones(1, still_in.dtype), still_in[:-1]])  # step i belongs to the window
    powers = jnp.asarray([gamma**i for i in range(reward.shape[0] + 1)], reward.dtype)
    steps = taken.sum(dtype=jnp.int32)
    n_step_reward = jnp.sum(taken.astype(reward.dtype) * powers[:-1] * reward)
    ends = jnp.any(terminated & (taken > 0))
    discount = jnp.where(ends, jnp.zeros((), reward.dtype), powers[steps])
    return n_step_reward, discount, steps
