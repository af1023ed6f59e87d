"""QR-DQN and IQN: Q-learning of the quantiles of the return."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdqn.objectives.objective import Estimates, Munchausen, Objective, dist_of, munchausen_terms, next_action
from jaxdqn.types import Batch


def quantile_huber_loss(
    quantiles: Float[Array, " N"], taus: Float[Array, " N"], targets: Float[Array, " K"], kappa: float = 1.0
) -> Float[Array, ""]:
    """Return the quantile regression loss, a sum over the quantiles and a mean over the targets.

        u_ij = targets_j - quantiles_i
        rho = |tau_i - 1{u_ij < 0}| Huber_kappa(u_ij) / kappa          and |tau_i - 1{u_ij < 0}| |u_ij| if kappa is 0

    Args:
        quantiles: Estimated quantiles.
        taus: Their fractions, in (0, 1).
        targets: Samples or quantiles of the target distribution, equally likely.
        kappa: Size of an error from which the loss is linear, at least 0.

    References:
        Dabney et al., Distributional Reinforcement Learning with Quantile Regression (2018), eq. 10.
    """
    error = targets[None, :] - quantiles[:, None]
    size = jnp.abs(error)
    huber = size if kappa == 0 else jnp.where(size <= kappa, 0.5 * error * error, kappa * (size - 0.5 * kappa)) / kappa
    below = (jax.lax.stop_gradient(error) < 0).astype(taus.dtype)
    weight = jnp.abs(taus[:, None] - below)
    return jnp.sum(jnp.mean(weight * huber, axis=1))


def quantile_q_learning(kappa: float = 1.0, *, double: bool = False, munchausen: Munchausen | None = None) -> Objective:
    """Return the objective of QR-DQN, of IQN and, with `munchausen`, of M-IQN.

    The next action is the one with the best mean. The priority is the absolute TD error of the means.

    Args:
        kappa: See `quantile_huber_loss`.
        double: Whether the online network chooses the next action.
        munchausen: Numbers of Munchausen Q-learning, which has no greedy next action; None: without.

    Raises:
        ValueError: If both `double` and `munchausen` are given, or `kappa` is below 0.

    References:
        Dabney et al. (2018), algorithm 1; Dabney et al., Implicit Quantile Networks for Distributional Reinforcement
        Learning (2018), eq. 3; Vieillard et al. (2020), whose M-IQN this is with a network of implicit quantiles.
    """
    if double and munchausen is not None:
        raise ValueError("double has no effect with munchausen, which has no greedy next action: turn one off")
    if kappa < 0:
        raise ValueError(f"kappa {kappa} must be 0 or above")

    def objective(estimates: Estimates, batch: Batch) -> tuple[Array, Array, dict[str, Array]]:
        following, quantiles = dist_of(estimates.next_target), dist_of(estimates.online)[batch.action]
        taus = estimates.online.taus
        if taus is None:
            raise ValueError("the objective needs quantiles and the network returns no taus: return QOutputs with taus")
        if munchausen is None:
            bonus = jnp.zeros(())
            next_quantiles = following[next_action(estimates, batch, double=double)]
        else:
            bonus, policy, scaled = munchausen_terms(estimates, batch, munchausen)
            next_quantiles = policy @ (following - scaled[:, None])
        targets = jax.lax.stop_gradient(batch.reward + bonus + batch.discount * next_quantiles)
        return quantile_huber_loss(quantiles, taus, targets, kappa), jnp.abs(targets.mean() - quantiles.mean()), {}

    return objective
