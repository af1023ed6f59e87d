"""Statistics of observations, kept among the parameters.

A trained agent is then one tree, and another seed with other statistics does not need another compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree, Shaped

from jaxdqn.preprocessing import ObservationStats, normalise

OBS_STATS = "obs_stats"
"""Key of the statistics in the tree of parameters, next to Flax's collections (`params`)."""


def init_params(
    network: nn.Module, key: Key[Array, ""], obs_shape: tuple[int, ...], obs_stats: ObservationStats | None
) -> dict[str, PyTree]:
    """Initialise parameters for observations of a shape, and add the statistics if there are any; consumes the key."""
    variables: dict[str, PyTree] = dict(network.init(key, jnp.zeros((1, *obs_shape), jnp.float32)))
    return variables if obs_stats is None else put_obs_stats(variables, obs_stats)


def put_obs_stats(params: dict[str, PyTree], obs_stats: ObservationStats) -> dict[str, PyTree]:
    """Return the parameters with these statistics, which are copied to new buffers."""
    return {**params, OBS_STATS: {name: jnp.array(x, jnp.float32) for name, x in obs_stats._asdict().items()}}


def make_q_values(network: nn.Module, scale: float = 255.0) -> Callable[..., Float[Array, "N A"]]:
    """Return `(params, observations) -> action values`, which scales and normalises observations first.

    Args:
        network: Module from float observations to action values.
        scale: Divisor of bytes (`ObsSpec.scale`); then the statistics among the parameters, if any, are applied.
    """

    def q_values(params: dict[str, PyTree], obs: Shaped[Any, "N ..."]) -> Float[Array, "N A"]:
        variables = dict(params)
        stats = variables.pop(OBS_STATS, None)
        obs = jnp.asarray(obs)
        divisor = scale if obs.dtype == jnp.uint8 else 1.0
        if stats is not None:
            obs = normalise(obs, ObservationStats(**jax.lax.stop_gradient(stats)), scale=divisor)
        else:
            obs = obs.astype(jnp.float32)
            obs = obs if divisor == 1.0 else obs / jnp.float32(divisor)
        return network.apply(variables, obs)  # type: ignore[return-value]  # a network returns values only

    return q_values


def freeze_obs_stats(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Exclude the statistics from an optimizer: their gradient is 0, but weight decay would change them."""

    def trainable(params: dict[str, PyTree]) -> dict[str, PyTree]:
        return {name: jax.tree.map(lambda _, name=name: name != OBS_STATS, tree) for name, tree in params.items()}

    return optax.masked(optimizer, trainable)
