"""A network as a function of parameters, raw observations and keys: what acting, evaluation and the learner call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree, Shaped

from jaxdqn.networks.noisy import NOISE
from jaxdqn.networks.outputs import as_q_outputs
from jaxdqn.normalisation import OBS_STATS
from jaxdqn.preprocessing import ObservationStats, normalise
from jaxdqn.types import QOutputs


class NetworkKeys(NamedTuple):
    """Random keys of one evaluation of a network.

    Attributes:
        noise: Key of noisy layers, the same for the whole batch.
        taus: A key for each observation, from which its quantile fractions are drawn; None: fixed fractions.
    """

    noise: Key[Array, ""]
    taus: Key[Array, " B"] | None = None


Apply = Callable[..., QOutputs]
"""`(params, obs [B, ...], keys: NetworkKeys | None) -> outputs`: a network with normalisation. Without keys it has no
randomness: mean weights, fixed quantile fractions."""


def make_apply(network: nn.Module, scale: float = 255.0, num_taus: int | None = None) -> Apply:
    """Return `(params, observations, keys=None) -> QOutputs`, which scales and normalises observations first.

    Args:
        network: Module from float observations to `QOutputs`, or to action values `[B, A]`. Noisy layers draw from the
            Flax stream `noise`, which it has only if there are keys.
        scale: Divisor of bytes (`ObsSpec.scale`); then the statistics among the parameters, if any, are applied.
        num_taus: Number of quantile fractions of an observation, drawn uniformly from (0, 1) if there are keys. They
            are the network's second argument. None: the network has no such argument.
    """

    def apply(params: dict[str, PyTree], obs: Shaped[Any, "B ..."], keys: NetworkKeys | None = None) -> QOutputs:
        variables = dict(params)
        stats = variables.pop(OBS_STATS, None)
        obs = jnp.asarray(obs)
        divisor = scale if obs.dtype == jnp.uint8 else 1.0
        if stats is not None:
            obs = normalise(obs, ObservationStats(**jax.lax.stop_gradient(stats)), scale=divisor)
        else:
            obs = obs.astype(jnp.float32)
            obs = obs if divisor == 1.0 else obs / jnp.float32(divisor)
        taus = None if num_taus is None or keys is None or keys.taus is None else draw_taus(keys.taus, num_taus)
        inputs = (obs,) if taus is None else (obs, taus)
        return as_q_outputs(network.apply(variables, *inputs, rngs=None if keys is None else {NOISE: keys.noise}))

    return apply


def draw_taus(keys: Key[Array, " B"], count: int) -> Float[Array, "B count"]:
    """Draw quantile fractions in (0, 1); the keys are consumed."""
    smallest = jnp.finfo(jnp.float32).tiny  # `uniform` includes 0, the fraction of the lowest return of all
    return jax.vmap(lambda key: jax.random.uniform(key, (count,), minval=smallest))(keys)


def make_q_values(network: nn.Module, scale: float = 255.0) -> Callable[..., Float[Array, "B A"]]:
    """Return `(params, observations) -> action values`, without randomness. See `make_apply`."""
    return q_values_of(make_apply(network, scale))


def q_values_of(apply: Apply) -> Callable[..., Float[Array, "B A"]]:
    """Return `(params, observations, keys=None) -> action values` of a network."""

    def q_values(params: Any, obs: Shaped[Any, "B ..."], keys: NetworkKeys | None = None) -> Float[Array, "B A"]:
        return apply(params, obs, keys).q_values

    return q_values


def apply_from(q_function: Callable[[Any, Any], Float[Array, "B A"]]) -> Apply:
    """Return your own function `(params, obs) -> [B, A]` or `-> QOutputs` as an `Apply` without randomness."""
    return lambda params, obs, keys=None: as_q_outputs(q_function(params, obs))
