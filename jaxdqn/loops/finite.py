"""Losses, gradients, values and parameters that are not finite end a run, with the name of what was not."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxdqn.agent import AgentState
from jaxdqn.learner import METRICS, LearnerState


def check_metrics_finite(metrics: dict[str, Any], frames: int) -> None:
    """Raise `FloatingPointError` that names the field, where an update's loss, gradient or value is not finite.

    Args:
        metrics: Of the updates after a batch, or their means, by name.
        frames: Rows collected by then.
    """
    updates = len(np.atleast_1d(metrics["loss"]))
    for update in range(updates):
        for name in METRICS:
            values = np.atleast_1d(np.atleast_1d(metrics[name])[update])  # of each device
            wrong = values[~np.isfinite(values)]
            if len(wrong):
                words = name.replace("_", " ")
                raise FloatingPointError(f"the {words} is {wrong[0]} in the updates after frame {frames:,}")


def check_state_finite(state: AgentState, frames: int) -> None:
    """Raise `FloatingPointError` where the newest update has left a parameter that is not finite."""
    if not bool(_finite(state.learner)):
        raise FloatingPointError(f"a parameter is not finite after the updates of frame {frames:,}")


@jax.jit
def _finite(learner: LearnerState) -> Bool[Array, ""]:
    leaves = [leaf for leaf in jax.tree.leaves(learner) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]).all()
