"""A user's own network, optimizer, objective and returns in place of the config's, and the checks that they fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from jaxdqn.config import Config
from jaxdqn.distributions import make_objective
from jaxdqn.learner import METRICS, Params
from jaxdqn.networks.apply import Apply, NetworkKeys
from jaxdqn.objectives.losses import Loss
from jaxdqn.objectives.objective import Estimates, Objective
from jaxdqn.objectives.q_learning import q_learning
from jaxdqn.observations import ObsSpec
from jaxdqn.returns import NStepReturn
from jaxdqn.types import Batch, QOutputs

RUN_COLUMNS = ("frames", "updates", "episodes", "return_mean", "length_mean", "epsilon")
"""Columns of `metrics.csv` before those of the updates."""

TIME_COLUMNS = ("elapsed_seconds", "frames_per_second")
"""Columns of `metrics.csv` after those of the updates."""


class AgentOverrides(NamedTuple):
    """A user's own network, optimizer, objective and returns in place of the config's; see `make_agent`."""

    network: nn.Module | None = None
    optimizer: optax.GradientTransformation | None = None
    objective: Objective | None = None
    loss: Loss | None = None
    returns: NStepReturn | None = None


def pick_objective(config: Config, objective: Objective | None, loss: Loss | None) -> Objective:
    """Return the user's objective, that of the user's loss, or the config's; raise `ValueError` if both are given."""
    if loss is None:
        return make_objective(config) if objective is None else objective
    if objective is not None:
        raise ValueError("loss has no effect with an objective: pass the loss to the objective")
    if config.distribution != "none" or config.munchausen:
        raise ValueError("loss needs plain or double Q-learning: pass an objective, or set distribution to none")
    return q_learning(loss, double=config.double)


def check_network(
    apply: Apply, new_params: Callable[..., Params], obs: ObsSpec, *, num_actions: int, noisy: bool
) -> None:
    """Check a user's network by tracing it, without computing anything.

    Args:
        apply: The network, from `make_apply`.
        new_params: Makes its parameters from a key.
        obs: Spec of the observations.
        num_actions: Number of discrete actions.
        noisy: Whether the run explores by the network's noise.

    Raises:
        ValueError: If it does not take quantile fractions and must, returns another shape than `[N, A]`, or should
            explore by its noise and has none.
    """
    key = jax.random.key(0)
    outputs = partial(_outputs, apply, obs)
    params = jax.eval_shape(new_params, key)
    try:
        program = jax.make_jaxpr(outputs, return_shape=True)(params, key, key)
    except TypeError as error:
        takes_only_obs = "argument" in str(error)
        if not takes_only_obs:
            raise
        fault = "distribution iqn calls your network with quantile fractions [N, T] as its second argument"
        raise ValueError(f"{fault}, and it does not take them: {error}") from error
    traced, found = program
    if found.q_values.shape != (1, num_actions):
        shape = ", ".join(["N", *map(str, found.q_values.shape[1:])])
        raise ValueError(f"your network returns action values [{shape}] and the environment has {num_actions} actions")
    noise = traced.jaxpr.invars[-2]
    if noisy and not any(noise is read for step in traced.jaxpr.eqns for read in step.invars):
        raise ValueError("noisy needs a network with noise, and yours has none: use NoisyDense, or set noisy to False")


def objective_metrics(
    objective: Objective,
    apply: Apply,
    new_params: Callable[..., Params],
    obs: ObsSpec,
    *,
    num_masked: int | None = None,
) -> tuple[str, ...]:
    """Return the names of an objective's own metrics, by tracing it for one sample.

    Args:
        objective: The objective.
        apply: The network, from `make_apply`.
        new_params: Makes its parameters from a key.
        obs: Spec of the observations.
        num_masked: Number of actions if samples have masks of them; None: they have none.

    Raises:
        ValueError: If the objective needs a distribution and the network estimates none, or a metric has the name
            of another column of `metrics.csv`.
    """

    def metrics(key: Key[Array, ""]) -> dict[str, Array]:
        outputs = _outputs(apply, obs, new_params(key), key, key)
        zero, seen = jnp.zeros(1), _no_obs(obs)
        mask = None if num_masked is None else jnp.ones((1, num_masked), bool)
        batch = Batch(seen, jnp.zeros(1, jnp.int32), zero, zero, seen, mask, mask)
        return jax.vmap(objective)(Estimates(*(outputs,) * 4), batch)[2]

    names = tuple(jax.eval_shape(metrics, jax.random.key(0)))
    taken = [name for name in names if name in (*RUN_COLUMNS, *METRICS, *TIME_COLUMNS)]
    if taken:
        raise ValueError(f"the objective's metric {taken[0]!r} has the name of another column of logs: rename it")
    return names


def _outputs(apply: Apply, obs: ObsSpec, params: Params, noise: Key[Array, ""], taus: Key[Array, ""]) -> QOutputs:
    return apply(params, _no_obs(obs), NetworkKeys(noise, taus[None]))


def _no_obs(obs: ObsSpec) -> Any:
    return jnp.zeros((1, *obs.seen_shape), np.dtype(obs.dtype))
