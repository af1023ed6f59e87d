"""C51: Q-learning of a categorical distribution over fixed returns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxdqn.objectives.objective import Estimates, Objective, dist_of, next_action
from jaxdqn.types import Batch

MASS_AT_ENDS = "mass_at_ends"
"""Metric: share of the target's probability at the lowest and the highest return of the support."""

MASS_OUTSIDE = "mass_outside"
"""Metric: share of the target's probability outside the support, before the projection moves it to the ends."""


def project(
    values: Float[Array, " K"], probabilities: Float[Array, " K"], support: Float[Array, " M"]
) -> Float[Array, " M"]:
    """Project a distribution on an evenly spaced support; values outside it go to its ends.

        m_i = sum_j p_j clip(1 - |clip(values_j, z_1, z_M) - z_i| / dz, 0, 1)

    This form has no special case where a value is on the support. Its mean is the one before, if no value is outside.

    References:
        Bellemare et al., A Distributional Perspective on Reinforcement Learning (2017), eq. 7.
    """
    spacing = (support[-1] - support[0]) / (support.shape[0] - 1)
    clipped = jnp.clip(values, support[0], support[-1])
    shares = jnp.clip(1 - jnp.abs(clipped[None, :] - support[:, None]) / spacing, 0, 1)
    return shares @ probabilities


def outside(values: Float[Array, "*K"], support: Float[Array, " M"]) -> Bool[Array, "*K"]:
    """Return which values are outside a support, by more than a ten thousandth of its width: rounding is not."""
    margin = 1e-4 * (support[-1] - support[0])
    return (values < support[0] - margin) | (values > support[-1] + margin)


def categorical_q_learning(support: Float[Array, " M"], *, double: bool = False) -> Objective:
    """Return the objective of C51: the cross-entropy to the projected target distribution, which is the priority, too.

    The next action is the one with the best mean. The metric `mass_at_ends` is high if returns reach the ends
    of the support, and `mass_outside` if they lie outside.

    Args:
        support: Returns of the atoms, evenly spaced and increasing, in units of scaled rewards.
        double: Whether the online network chooses the next action.

    References:
        Bellemare et al. (2017), algorithm 1.
    """

    def objective(estimates: Estimates, batch: Batch) -> tuple[Array, Array, dict[str, Array]]:
        atoms = jnp.asarray(support, jnp.float32)
        online, following = dist_of(estimates.online), dist_of(estimates.next_target)
        probabilities = jax.nn.softmax(following[next_action(estimates, batch, double=double)])
        returns = batch.reward + batch.discount * atoms
        target = jax.lax.stop_gradient(project(returns, probabilities, atoms))
        loss = -jnp.sum(target * jax.nn.log_softmax(online[batch.action]))
        beyond = jnp.sum(probabilities * outside(returns, atoms).astype(jnp.float32))
        return loss, loss, {MASS_AT_ENDS: target[0] + target[-1], MASS_OUTSIDE: beyond}

    return objective
