"""Heads, dueling or not: from features to action values or their distributions; and what all layers share.

References:
    Wang et al., Dueling Network Architectures for Deep Reinforcement Learning (2016), eq. 9.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer
from jaxtyping import Array, DTypeLike, Float

from jaxdqn.networks.noisy import NOISE, NoisyDense, scaled_noise
from jaxdqn.networks.outputs import ImplicitQuantiles, Output, TauFeatures, Values, midpoints
from jaxdqn.types import QOutputs

TORCH_VARIANCE = 1 / 3
"""Variance times `fan_in` of U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default, also in TorchRL's tutorial."""


def kernel_init(variance: float) -> Initializer:
    """Return an initialiser of weights: uniform, with mean 0 and variance `variance / fan_in`."""
    return nn.initializers.variance_scaling(variance, "fan_in", "uniform")


def fan_in_uniform(fan_in: int) -> Initializer:
    """Return the initialiser U(-1/sqrt(fan_in), 1/sqrt(fan_in)), for biases: their shape does not contain `fan_in`."""
    bound = fan_in**-0.5

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


@jax.custom_jvp
def elu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return `x` above 0, `exp(x) - 1` below.

    `exp(x) - 1` and not `expm1`: the absolute difference is at most 6e-8, the float32 rounding of values of order 1,
    and it is far cheaper on the CPU, where `expm1` alone took a fifth of a forward pass. The derivative below 0,
    `exp(x)`, is computed from the result, so nothing is computed twice or stored in addition.
    """
    return jnp.maximum(x, 0.0) + (jnp.exp(jnp.minimum(x, 0.0)) - 1.0)


@elu.defjvp
def _elu_derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    result = elu(*primals)
    return result, tangents[0] * (jnp.minimum(result, 0.0) + 1.0)


Activation = Literal["elu", "relu"]


def activate(x: Float[Array, "*shape"], activation: Activation) -> Float[Array, "*shape"]:
    """Return an activation of a layer."""
    return elu(x) if activation == "elu" else nn.relu(x)


NUM_MIDPOINTS = 32
"""Fixed fractions at which an IQN is evaluated if no others are given, as many as the paper samples to act."""


class DuelingHeads(nn.Module):
    """Heads: `Q(s, a) = V(s) + A(s, a) - mean_a A(s, a)` from features, for each number of the output.

    Attributes:
        num_actions: Number of discrete actions.
        hidden: Widths of the hidden layers of each head.
        value_bias: Initial bias of the value head's output: the value that the network predicts initially. Without
            effect if the output's numbers are logits.
        variance: Initial variance of weights times `fan_in`.
        dtype: Dtype in which the first layer computes; the others use float32, so that close values keep their order.
        output: What is estimated for each action.
        noisy_sigma: Initial deviation of noisy layers, in place of dense ones; None: dense layers. See `NoisyDense`.
        layer_norm: Whether each hidden layer is normalised before its activation.
        dueling: Whether there are two heads; otherwise a single one gives `Q(s, a)`.
        activation: Of the hidden layers.
    """

    num_actions: int
    hidden: Sequence[int] = (64, 64)
    value_bias: float = 2.0
    variance: float = TORCH_VARIANCE
    dtype: DTypeLike | None = None
    output: Output = Values()
    noisy_sigma: float | None = None
    layer_norm: bool = False
    dueling: bool = True
    activation: Activation = "elu"

    @nn.compact
    def __call__(self, features: Float[Array, "B D"], taus: Float[Array, "B N"] | None = None) -> QOutputs:
        """Return the outputs for a batch of features; `taus` is for implicit quantiles only."""
        if not isinstance(self.output, ImplicitQuantiles):
            return self.output.read(self._numbers(features))
        if taus is None:
            taus = jnp.broadcast_to(midpoints(NUM_MIDPOINTS)[None], (features.shape[0], NUM_MIDPOINTS))
        batch, count = taus.shape
        weights = TauFeatures(features.shape[-1], self.output.cosines, name="taus")(taus)
        numbers = self._numbers((features[:, None] * weights).reshape(batch * count, -1))
        return self.output.read(numbers.reshape(batch, count, -1).swapaxes(1, 2))._replace(taus=taus)

    def _numbers(self, features: Float[Array, "B D"]) -> Float[Array, "B A M"]:
        width, noise = self.output.width, self._draw_noise(features.shape[-1])
        value_bias = self.value_bias if self.output.starts_at_value else 0.0
        if not self.dueling:
            x = features
            if self.hidden:
                bias_init = fan_in_uniform(features.shape[-1])
                x = self._activate(self._dense(x, "action_first", self.hidden[0], bias_init, noise, self.dtype))
            x = self._stream(x, "action", self.num_actions * width, value_bias, noise)
            return x.reshape(-1, self.num_actions, width)
        advantage = value = features
        if self.hidden:
            # As in TorchRL's tutorial, the bias of the first layers has PyTorch's initialisation; the others are 0.
            bias_init = fan_in_uniform(features.shape[-1])
            if self.noisy_sigma is None:
                # Both are one matrix product: they have most of the network's weights.
                both = self._dense(features, "first", 2 * self.hidden[0], bias_init, noise, self.dtype)
                advantage, value = jnp.split(both, 2, axis=-1)
            else:  # each layer has noise of its own
                advantage = self._dense(features, "advantage_first", self.hidden[0], bias_init, noise, self.dtype)
                value = self._dense(features, "value_first", self.hidden[0], bias_init, noise, self.dtype)
            advantage, value = self._activate(advantage), self._activate(value)
        advantage = self._stream(advantage, "advantage", self.num_actions * width, 0.0, noise)
        advantage = advantage.reshape(-1, self.num_actions, width)
        value = self._stream(value, "value", width, value_bias, noise)[:, None]
        return value + advantage - advantage.mean(axis=1, keepdims=True)

    def _stream(
        self, x: Float[Array, "B D"], name: str, width: int, output_bias: float, noise: dict[str, Array]
    ) -> Float[Array, "B W"]:
        x = x.astype(jnp.float32)
        for index, hidden in enumerate(self.hidden[1:], 1):
            x = self._activate(self._dense(x, f"{name}_{index}", hidden, nn.initializers.zeros_init(), noise))
        return self._dense(x, f"{name}_output", width, nn.initializers.constant(output_bias), noise)

    def _activate(self, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return activate(nn.LayerNorm()(x) if self.layer_norm else x, self.activation)

    def _dense(
        self,
        x: Float[Array, "B D"],
        name: str,
        width: int,
        bias_init: Initializer,
        noise: dict[str, Array],
        dtype: DTypeLike | None = None,
    ) -> Float[Array, "B W"]:
        weights = kernel_init(self.variance)
        if self.noisy_sigma is not None:
            noisy = NoisyDense(width, self.noisy_sigma, weights, bias_init, dtype=dtype, name=name)
            return noisy(x, noise.get(name))
        return nn.Dense(width, kernel_init=weights, bias_init=bias_init, dtype=dtype, name=name)(x)

    def _draw_noise(self, features: int) -> dict[str, Array]:
        """Return the noise of each noisy layer; empty without a stream.

        It is one draw: with a draw for each layer, Rainbow takes twice as long to compile.
        """
        if self.noisy_sigma is None or not self.has_rng(NOISE):
            return {}
        sizes: dict[str, int] = {}
        streams = {"advantage": self.num_actions, "value": 1} if self.dueling else {"action": self.num_actions}
        for name, numbers in streams.items():
            width = numbers * self.output.width
            widths = (features, *self.hidden, width)
            steps = ("first", *map(str, range(1, len(self.hidden))))[: len(self.hidden)]
            for step, inputs, outputs in zip((*steps, "output"), widths[:-1], widths[1:], strict=True):
                sizes[f"{name}_{step}"] = inputs + outputs
        *ends, total = itertools.accumulate(sizes.values())
        return dict(zip(sizes, jnp.split(scaled_noise(self.make_rng(NOISE), total), ends), strict=True))
