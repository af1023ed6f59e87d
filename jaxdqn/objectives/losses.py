"""TD errors and losses of one sample; the caller applies `jax.vmap`."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Loss = Callable[[Float[Array, ""]], Float[Array, ""]]


def q_learning_td_error(
    q_values: Float[Array, " A"],
    action: Int[Array, ""],
    reward: Float[Array, ""],
    discount: Float[Array, ""],
    next_q_target: Float[Array, " A"],
    next_q_selector: Float[Array, " A"] | None = None,
) -> Float[Array, ""]:
    """Return the TD error of (double) Q-learning.

        delta = reward + discount * next_q_target[a*] - q_values[action]
        a* = argmax next_q_selector

    With `next_q_selector=None` the target network also chooses the action, `a* = argmax next_q_target`: plain
    Q-learning. For double Q-learning pass the online network's values of the next observation. No gradient flows
    into the target.

    Args:
        q_values: Online values of the observation.
        action: The action taken.
        reward: Reward of the window.
        discount: `gamma^k`, 0 once terminated.
        next_q_target: Target network's values of the next observation.
        next_q_selector: Values that choose the next action.

    Returns:
        The TD error.

    References:
        Mnih et al., Human-level control through deep reinforcement learning (2015), eq. 1 of Methods; van
        Hasselt et al., Deep Reinforcement Learning with Double Q-learning (2016), eq. 4.
    """
    selector = next_q_target if next_q_selector is None else next_q_selector
    target = reward + discount * next_q_target[jnp.argmax(selector)]
    return jax.lax.stop_gradient(target) - q_values[action]


def squared_loss(td_error: Float[Array, ""]) -> Float[Array, ""]:
    """Return `delta^2` ("l2" in TorchRL), without the factor 1/2 of `optax.l2_loss`."""
    return jnp.square(td_error)


def huber_loss(td_error: Float[Array, ""]) -> Float[Array, ""]:
    """Return `delta^2 / 2` if `|delta| <= 1`, otherwise `|delta| - 1/2`.

    References:
        Huber, Robust Estimation of a Location Parameter (1964); Mnih et al. (2015) clip the gradient of the
        error, which is equivalent to this loss.
    """
    size = jnp.abs(td_error)
    return jnp.where(size <= 1.0, 0.5 * jnp.square(td_error), size - 0.5)


LOSSES: dict[str, Loss] = {"squared": squared_loss, "huber": huber_loss}
