"""Policies of trained agents."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxdqn.evaluation.evaluator import Policy
from jaxdqn.exploration import allowed_values
from jaxdqn.learner import Params, QFunction


def greedy_policy(q_values: QFunction, params: Params) -> Policy:
    """Return a function from observations `[N, ...]`, and masks if there are any, to the best allowed actions `[N]`."""

    def policy(obs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        values = q_values(params, jnp.asarray(obs))
        if mask is not None:
            values = allowed_values(values, jnp.asarray(mask))
        return np.asarray(values).argmax(axis=-1)

    return policy
