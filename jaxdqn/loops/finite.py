"""Checks that losses, gradients, action values and parameters are finite."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxdqn.agent.agent import AgentState
from jaxdqn.learner import METRICS, LearnerState


def check_metrics_finite(metrics: dict[str, Any], frames: int) -> None:
    """Raise `FloatingPointError`, which names the metric, if a loss, gradient norm or action value is not finite.

    Args:
        metrics: The metrics of the updates after a batch, or their means, by name.
        frames: Rows collected so far.
    """
    updates = len(np.atleast_1d(metrics["loss"]))
    names = (*METRICS, *(name for name in metrics if name not in METRICS))
    for update in range(updates):
        for name in names:
            values = np.atleast_1d(np.atleast_1d(metrics[name])[update])  # one for each device
            wrong = values[~np.isfinite(values)]
            if len(wrong):
                words = name.replace("_", " ")
                raise FloatingPointError(f"the {words} is {wrong[0]} in the updates after frame {frames:,}")


def check_state_finite(state: AgentState, frames: int) -> None:
    """Raise `FloatingPointError` if a parameter or a priority is not finite after the newest update."""
    if not bool(_finite(state.learner)):
        raise FloatingPointError(f"a parameter is not finite after the updates of frame {frames:,}")
    priorities = state.replay.priorities
    if priorities is not None and not np.isfinite(np.asarray(priorities.largest)).all():
        raise FloatingPointError(f"the objective's priority is not finite in the updates before frame {frames:,}")


@jax.jit
def _finite(learner: LearnerState) -> Bool[Array, ""]:
    leaves = [leaf for leaf in jax.tree.leaves(learner) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]).all()
