"""The interface of an objective, and what objectives share: the next action, and Munchausen's terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxdqn.exploration import allowed_values
from jaxdqn.types import Batch, QOutputs


class Estimates(NamedTuple):
    """The outputs of both networks at both ends of a window. XLA removes those that an objective does not use.

    Attributes:
        online: Online network at the first observation; the only one with a gradient.
        target: Target network at the first observation.
        next_online: Online network at the next observation.
        next_target: Target network at the next observation.
    """

    online: QOutputs
    target: QOutputs
    next_online: QOutputs
    next_target: QOutputs


Objective = Callable[[Estimates, Batch], tuple[Float[Array, ""], Float[Array, ""], dict[str, Float[Array, ""]]]]
"""`(estimates, batch) -> (loss, priority, metrics)`, all of one sample: no argument has a batch axis.

The priority is the absolute TD error or what takes its place, for prioritised replay. Metrics are scalars by name; the
learner logs their means.
"""


class Munchausen(NamedTuple):
    """Numbers of Munchausen Q-learning.

    Attributes:
        alpha: Weight of the bonus, in [0, 1].
        tau: Temperature of the policy `softmax(q_values / tau)`, in units of scaled rewards.
        clip: Lower bound of `tau ln pi(a|s)`, below 0.

    References:
        Vieillard et al., Munchausen Reinforcement Learning (2020), eq. 1 and section 4.
    """

    alpha: float = 0.9
    tau: float = 0.03
    clip: float = -1.0


def dist_of(outputs: QOutputs) -> Float[Array, "A M"]:
    """Return the distributions of a network; raise `ValueError` if it estimates none."""
    if outputs.dist is None:
        raise ValueError("the objective needs a distribution and the network returns none: return QOutputs with dist")
    return outputs.dist


def next_action(estimates: Estimates, batch: Batch, *, double: bool) -> Int[Array, ""]:
    """Return the best allowed action at the next observation.

    Args:
        estimates: Of one sample.
        batch: The sample.
        double: Whether the online network chooses (van Hasselt et al., 2016, eq. 4); otherwise the target network does.
    """
    selector = estimates.next_online if double else estimates.next_target
    return jnp.argmax(allowed_values(selector.q_values, batch.next_mask))


def soft_policy(
    q_values: Float[Array, " A"], tau: float, mask: Bool[Array, " A"] | None
) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
    """Return `pi = softmax(q_values / tau)` and `tau ln pi`, both 0 for actions that are not allowed."""
    scaled = tau * jax.nn.log_softmax(allowed_values(q_values, mask) / tau)
    policy = jnp.exp(scaled / tau)
    return policy, jnp.where(jnp.isfinite(scaled), scaled, 0.0)


def munchausen_terms(
    estimates: Estimates, batch: Batch, munchausen: Munchausen
) -> tuple[Float[Array, ""], Float[Array, " A"], Float[Array, " A"]]:
    """Return the bonus of the first action, and at the next observation the policy and `tau ln pi`.

        bonus = alpha clip(tau ln pi(a|s), clip, 0)

    Both policies are those of the target network. The bonus is that of the window's first step only: the paper has
    windows of one step.
    """
    _, first = soft_policy(estimates.target.q_values, munchausen.tau, batch.mask)
    policy, scaled = soft_policy(estimates.next_target.q_values, munchausen.tau, batch.next_mask)
    return munchausen.alpha * jnp.clip(first[batch.action], munchausen.clip, 0.0), policy, scaled
