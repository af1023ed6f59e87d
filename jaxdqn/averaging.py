"""Averages of parameters over updates: the target network, and the greedy agent."""

from __future__ import annotations

import jax
from jaxtyping import Array, Int, PyTree

AVERAGE_POWER = 8.0
"""Power of `polynomial_average`: the newest 11 % of the updates have two thirds of the weight."""


def polyak_update(params: PyTree, target_params: PyTree, tau: float) -> PyTree:
    """Return the new target: `(1 - tau) target + tau params`, leaf by leaf.

    References:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging (1992); Lillicrap et al.,
        Continuous control with deep reinforcement learning (2016), section 3.
    """
    return jax.tree.map(lambda new, old: old + tau * (new - old), params, target_params)


def polynomial_average(
    params: PyTree, average: PyTree, updates: Int[Array, ""], power: float = AVERAGE_POWER
) -> PyTree:
    """Return the average with the newest parameters, whose weight is `(1 + power) / (updates + power)`.

    After `t` updates the parameters of update `i` have about `(i / t) ** power` times the weight of the newest, and the
    newest `1 / (1 + power)` of the updates have two thirds of all weight, however many there are. Early ones are
    forgotten, and no number has to match the length of the run. With `power` 0 it is the mean of all.

    Args:
        params: Parameters after this update.
        average: The average before it.
        updates: Number of updates so far, at least 1; the first replaces the average by the parameters.
        power: At least 0.

    References:
        Shamir and Zhang, Stochastic Gradient Descent for Non-smooth Optimization: Convergence Results and Optimal
        Averaging Schemes (2013), section 4.
    """
    weight = (1.0 + power) / (updates.astype("float32") + power)
    return jax.tree.map(lambda new, old: old + weight.astype(old.dtype) * (new - old), params, average)
