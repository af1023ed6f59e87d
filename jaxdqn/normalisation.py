"""Statistics of observations, carried among the parameters.

A trained agent is one tree, and no program is compiled again because another seed's random rollout had another mean.
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
"""The statistics' name beside Flax's collections (`params`)."""


def init_params(
    network: nn.Module, key: Key[Array, ""], obs_shape: tuple[int, ...], obs_stats: ObservationStats | None
) -> dict[str, PyTree]:
    """Fresh parameters for observations of a shape, and the statistics where there are any; the key is consumed."""
    variables: dict[str, PyTree] = dict(network.init(key, jnp.zeros((1, *obs_shape), jnp.float32)))
    return variables if obs_stats is None else put_obs_stats(variables, obs_stats)


def put_obs_stats(params: dict[str, PyTree], obs_stats: ObservationStats) -> dict[str, PyTree]:
    """The same parameters with other statistics, in buffers of their own."""
    return {**params, OBS_STATS: {name: jnp.array(x, jnp.float32) for name, x in obs_stats._asdict().items()}}


def make_q_values(network: nn.Module, scale: float = 255.0) -> Callable[..., Float[Array, "N A"]]:
    """`(params, observations) -> action values`, of observations that are scaled and normalised first.

    Args:
        network: From float observations to action values.
        scale: Bytes are divided by this (`ObsSpec.scale`); then the statistics among the parameters, if any, apply.
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
        return network.apply(variables, obs)  # type: ignore[return-value]  # a network returns values alone

    return q_values


def leave_obs_stats(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser for everything but the statistics, whose gradient is 0: weight decay would change them."""

    def trained(params: dict[str, PyTree]) -> dict[str, PyTree]:
        return {name: jax.tree.map(lambda _, name=name: name != OBS_STATS, tree) for name, tree in params.items()}

    return optax.masked(optimizer, trained)
