"""Noisy layers, which explore by random weights."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer
from jaxtyping import Array, DTypeLike, Float, Key

NOISE = "noise"
"""Name of the random stream of a network's noise. Without it layers use their mean weights."""


def scaled_noise(key: Key[Array, ""], size: int) -> Float[Array, " size"]:
    """Return `sign(x) sqrt(abs(x))` of standard normal numbers `x`; the key is consumed."""
    noise = jax.random.normal(key, (size,))
    return jnp.sign(noise) * jnp.sqrt(jnp.abs(noise))


class NoisyDense(nn.Module):
    """A dense layer with factorised Gaussian noise on its weights, the same for the whole batch.

        w = mu + sigma * f(p) f(q)^T        b = mu_b + sigma_b * f(q)        f(x) = sign(x) sqrt(abs(x))

    `p` and `q` are drawn from the stream `noise`, unless they are given; without either, `w = mu` and `b = mu_b`.

    Attributes:
        features: Number of outputs.
        sigma: Initial deviation times the square root of the number of inputs: 0.5 in the paper, 0.1 in Dopamine.
        kernel_init: Initialiser of the mean weights.
        bias_init: Initialiser of the mean biases.
        dtype: Dtype in which the layer computes; None: that of its inputs and parameters.

    References:
        Fortunato et al., Noisy Networks for Exploration (2018), eqs. 9 to 11 and section 3.2.
    """

    features: int
    sigma: float = 0.5
    kernel_init: Initializer = nn.initializers.lecun_uniform()
    bias_init: Initializer = nn.initializers.zeros_init()
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, inputs: Float[Array, "B D"], noise: Float[Array, " N"] | None = None) -> Float[Array, "B F"]:
        """Return the outputs of a batch; `noise` are the numbers `f(p)` and then `f(q)`, `N = D + F`."""
        size = inputs.shape[-1]
        deviation: Callable[..., Array] = nn.initializers.constant(self.sigma * size**-0.5)
        kernel = self.param("kernel", self.kernel_init, (size, self.features), jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        kernel_sigma = self.param("kernel_sigma", deviation, (size, self.features), jnp.float32)
        bias_sigma = self.param("bias_sigma", deviation, (self.features,), jnp.float32)
        if noise is None and self.has_rng(NOISE):
            noise = scaled_noise(self.make_rng(NOISE), size + self.features)
        if noise is not None:
            p, q = jnp.split(noise, [size])
            kernel = kernel + kernel_sigma * (p[:, None] * q[None, :])
            bias = bias + bias_sigma * q
        inputs, kernel, bias = nn.dtypes.promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        return inputs @ kernel + bias[None]
