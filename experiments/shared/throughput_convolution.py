"""The rows of `throughput.py` about the gradient of a convolution on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import jaxdqn
from jaxdqn.networks.convolution import Implementation
from shared.throughput_rows import Row, median_seconds

STEPS, BATCH = 4, 32


def convolution_rows(rounds: int) -> Iterator[Row]:
    """Compare gradients of TorchRL's network inside `lax.scan`: `jaxdqn.Conv`, and the gradients that JAX derives."""
    found = median_seconds(rounds, ours=_make_call("channels_last"), peer=_make_call("xla"))
    note = "the gradients that JAX derives, by jax.jit"
    yield Row("gradient of TorchRL's network in a scan", found["ours"] / STEPS, found["peer"] / STEPS, "s", note)


def _make_call(implementation: Implementation) -> Any:
    network = jaxdqn.DuelingCNN(2, implementation=implementation)
    obs = jax.random.normal(jax.random.key(0), (STEPS, BATCH, 64, 64, 4))
    params = network.init(jax.random.key(1), obs[0])

    def step(params: Any, obs: jax.Array) -> tuple[Any, None]:
        gradient = jax.grad(lambda params: jnp.square(network.apply(params, obs).q_values).mean())(params)
        return jax.tree.map(lambda leaf, slope: leaf - 1e-6 * slope, params, gradient), None

    compiled = (jaxdqn.jit if implementation == "channels_last" else jax.jit)(lambda p: jax.lax.scan(step, p, obs)[0])
    return lambda: compiled(params)
