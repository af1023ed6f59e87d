"""HL-Gauss: Q-learning of the mean as classification."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdqn.objectives.categorical import MASS_OUTSIDE, outside
from jaxdqn.objectives.objective import Estimates, Objective, dist_of, next_action
from jaxdqn.types import Batch


def hl_gauss_q_learning(support: Float[Array, " M"], *, sigma: float = 0.75, double: bool = False) -> Objective:
    """Return the cross-entropy to a histogram of the target, a Gaussian around it, for a network like that of C51.

    Bins are centred on `support`; `sigma` is in widths of a bin. The priority is the absolute TD error.

    References:
        Farebrother et al., Stop Regressing: Training Value Functions via Classification (2024), section 3.1.
    """

    def objective(estimates: Estimates, batch: Batch) -> tuple[Array, Array, dict[str, Array]]:
        width = support[1] - support[0]
        value = estimates.next_target.q_values[next_action(estimates, batch, double=double)]
        target = jax.lax.stop_gradient(batch.reward + batch.discount * value)
        edges = jnp.append(support - width / 2, support[-1] + width / 2)
        reached = jax.lax.erf((edges - jnp.clip(target, support[0], support[-1])) / (2**0.5 * sigma * width))
        mass = (reached[1:] - reached[:-1]) / (reached[-1] - reached[0])
        loss = -jnp.sum(mass * jax.nn.log_softmax(dist_of(estimates.online)[batch.action]))
        td_error = jnp.abs(target - estimates.online.q_values[batch.action])
        return loss, td_error, {MASS_OUTSIDE: outside(target, support).astype(jnp.float32)}

    return objective
