"""Statistics of observations, kept among the parameters.

A trained agent is then one tree, and another seed with other statistics does not need another compilation.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from jaxdqn.preprocessing import ObservationStats

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


def freeze_obs_stats(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Exclude the statistics from an optimizer: their gradient is 0, but weight decay would change them."""

    def trainable(params: dict[str, PyTree]) -> dict[str, PyTree]:
        return {name: jax.tree.map(lambda _, name=name: name != OBS_STATS, tree) for name, tree in params.items()}

    return optax.masked(optimizer, trainable)
