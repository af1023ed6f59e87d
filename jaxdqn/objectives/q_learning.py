"""Q-learning of the mean return: plain, double and Munchausen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdqn.exploration import allowed_values
from jaxdqn.objectives.losses import Loss, q_learning_td_error, squared_loss
from jaxdqn.objectives.objective import Estimates, Munchausen, Objective, munchausen_terms
from jaxdqn.types import Batch


def q_learning(loss: Loss = squared_loss, *, double: bool = False, munchausen: Munchausen | None = None) -> Objective:
    """Return the objective of Q-learning: a loss of the TD error.

        delta = reward + discount * max_a q_target(s', a) - q(s, a)                          plain
        delta = reward + discount * q_target(s', argmax_a q(s', a)) - q(s, a)                double
        delta = reward + bonus + discount * sum_a pi(a|s') (q_target(s', a) - tau ln pi(a|s')) - q(s, a)   Munchausen

    The priority is `abs(delta)`.

    Args:
        loss: Loss of the TD error.
        double: Whether the online network chooses the next action.
        munchausen: Numbers of Munchausen Q-learning, which has no greedy next action; None: without.

    Raises:
        ValueError: If both `double` and `munchausen` are given.

    References:
        Mnih et al. (2015), eq. 1 of Methods; van Hasselt et al. (2016), eq. 4; Vieillard et al. (2020), eq. 1.
    """
    if double and munchausen is not None:
        raise ValueError("double has no effect with munchausen, which has no greedy next action: turn one off")

    def objective(estimates: Estimates, batch: Batch) -> tuple[Array, Array, dict[str, Array]]:
        if munchausen is None:
            selector = estimates.next_online if double else estimates.next_target
            td_error = q_learning_td_error(
                estimates.online.q_values,
                batch.action,
                batch.reward,
                batch.discount,
                estimates.next_target.q_values,
                allowed_values(selector.q_values, batch.next_mask),
            )
        else:
            td_error = _munchausen_td_error(estimates, batch, munchausen)
        return loss(td_error), jnp.abs(td_error), {}

    return objective


def _munchausen_td_error(estimates: Estimates, batch: Batch, munchausen: Munchausen) -> Float[Array, ""]:
    bonus, policy, scaled = munchausen_terms(estimates, batch, munchausen)
    value = jnp.sum(policy * (estimates.next_target.q_values - scaled))
    target = batch.reward + bonus + batch.discount * value
    return jax.lax.stop_gradient(target) - estimates.online.q_values[batch.action]
