"""Dueling networks in Flax Linen, from float observations `[B, ...]` to action values `[B, num_actions]`.

References:
    Mnih et al., Human-level control through deep reinforcement learning (2015), Methods, Model architecture;
    Wang et al., Dueling Network Architectures for Deep Reinforcement Learning (2016), eq. 9.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer
from jaxtyping import Array, DTypeLike, Float

from jaxdqn.networks.convolution import Conv, Implementation

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


def frame_differences(stack: Float[Array, "*B K"], gain: float, channels: int = 1) -> Float[Array, "*B K"]:
    """Return the difference of each frame from the previous one, times `gain`, and the newest frame.

    This is a change of basis without loss. Neighbouring frames are nearly equal, so a network that receives the frames
    has to learn large weights of opposite sign before it can detect motion.

    Args:
        stack: Normalised frames, the newest last.
        gain: Factor on the differences, which are small compared with the frames.
        channels: Channels of one frame.

    Returns:
        `K` channels: differences, the oldest first, and the newest frame last.
    """
    differences = stack[..., channels:] - stack[..., :-channels]
    return jnp.concatenate([gain * differences, stack[..., -channels:]], axis=-1)


def row_moments(x: Float[Array, "B H W C"]) -> Float[Array, "B H 2*C"]:
    """Return the zeroth and first moment of each row of feature maps, with the columns at -1 to 1 from left to right.

    They say how strong a feature is in a row and how far from the middle. A dense layer then needs no separate weights
    for each column to use a position. Like the expected position of Levine et al., End-to-End Training of Deep
    Visuomotor Policies (2016), section 5.1, but not divided by the sum, so that an absent feature has no position.

    Args:
        x: Feature maps; a single column is at 0, the middle.

    Returns:
        `C` sums over the columns, then `C` sums weighted by the position of the column, in the dtype of `x`.
    """
    width = x.shape[2]
    position = jnp.linspace(-1.0, 1.0, width, dtype=x.dtype) if width > 1 else jnp.zeros(1, x.dtype)
    return jnp.concatenate([x.sum(axis=2), (x * position[None, None, :, None]).sum(axis=2)], axis=-1)


class DuelingHeads(nn.Module):
    """Dueling heads: `Q(s, a) = V(s) + A(s, a) - mean_a A(s, a)` from features.

    Attributes:
        num_actions: Number of discrete actions, the width of the advantage head.
        hidden: Widths of the hidden layers of each head.
        value_bias: Initial bias of the value head's output: the value that the network predicts initially.
        variance: Initial variance of weights times `fan_in`.
        dtype: Dtype in which the first layer computes; the others use float32, so that close values keep their order.
    """

    num_actions: int
    hidden: Sequence[int] = (64, 64)
    value_bias: float = 2.0
    variance: float = TORCH_VARIANCE
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, features: Float[Array, "B D"]) -> Float[Array, "B A"]:
        """Return the action values of a batch of features."""
        advantage = value = features
        if self.hidden:
            # Both first layers are one matrix product: they have most of the network's weights. As in TorchRL's
            # tutorial, their bias has PyTorch's initialisation, and that of the other layers is 0.
            bias_init = fan_in_uniform(features.shape[-1])
            first = self._dense("first", 2 * self.hidden[0], bias_init, self.dtype)(features)
            advantage, value = jnp.split(elu(first), 2, axis=-1)
        advantage = self._stream(advantage, "advantage", self.num_actions, 0.0)
        value = self._stream(value, "value", 1, self.value_bias)
        return value + advantage - advantage.mean(axis=-1, keepdims=True)

    def _stream(self, x: Float[Array, "B D"], name: str, width: int, output_bias: float) -> Float[Array, "B W"]:
        x = x.astype(jnp.float32)
        for index, hidden in enumerate(self.hidden[1:], 1):
            x = elu(self._dense(f"{name}_{index}", hidden, nn.initializers.zeros_init())(x))
        return self._dense(f"{name}_output", width, nn.initializers.constant(output_bias))(x)

    def _dense(self, name: str, width: int, bias_init: Initializer, dtype: DTypeLike | None = None) -> nn.Dense:
        return nn.Dense(width, kernel_init=kernel_init(self.variance), bias_init=bias_init, dtype=dtype, name=name)


class DuelingCNN(nn.Module):
    """A dueling network for stacked frames.

    The defaults are the network of TorchRL's tutorial: 1,262,691 parameters for 64x64x4 and two actions.

    Attributes:
        num_actions: Number of discrete actions.
        features: Channels of each convolution.
        kernel_sizes: Side of each convolution's kernel.
        strides: Stride of each convolution.
        hidden: Widths of the hidden layers of each head.
        value_bias: Initial bias of the value head's output.
        variance: Initial variance of weights times `fan_in`; 1 is LeCun's, 1/3 TorchRL's.
        motion_gain: Gain of `frame_differences`, which replace the frames; None: the frames themselves.
        channels: Channels of one frame, for `frame_differences`.
        moments: Whether the heads receive the `row_moments` of the last feature maps instead of the maps.
        implementation: How to compute convolutions; None: by backend.
        dtype: Dtype in which convolutions and the heads' first layer compute; parameters and values are always float32.
    """

    num_actions: int
    features: Sequence[int] = (32, 64, 64)
    kernel_sizes: Sequence[int] = (6, 4, 3)
    strides: Sequence[int] = (2, 2, 1)
    hidden: Sequence[int] = (64, 64)
    value_bias: float = 2.0
    variance: float = TORCH_VARIANCE
    motion_gain: float | None = None
    channels: int = 1
    moments: bool = False
    implementation: Implementation | None = None
    dtype: DTypeLike | None = None

    @property
    def smallest_frame(self) -> int:
        """Side of the smallest frame for which the last feature map is not empty."""
        side = 1
        for size, stride in zip(self.kernel_sizes[::-1], self.strides[::-1], strict=True):
            side = (side - 1) * stride + size
        return side

    @nn.compact
    def __call__(self, obs: Float[Array, "B H W C"]) -> Float[Array, "B A"]:
        """Return the action values of a batch of normalised frame stacks."""
        x = obs if self.motion_gain is None else frame_differences(obs, self.motion_gain, self.channels)
        # As in the heads: the first bias has PyTorch's initialisation, the others are 0.
        bias_init = fan_in_uniform(self.kernel_sizes[0] ** 2 * x.shape[-1])
        for features, size, stride in zip(self.features, self.kernel_sizes, self.strides, strict=True):
            weights = kernel_init(self.variance)
            conv = Conv(features, (size, size), (stride, stride), weights, bias_init, self.implementation, self.dtype)
            x = elu(conv(x))
            bias_init = nn.initializers.zeros_init()
        x = row_moments(x) if self.moments else x
        x = x.reshape(x.shape[0], -1)
        return DuelingHeads(self.num_actions, self.hidden, self.value_bias, self.variance, self.dtype)(x)


class DuelingMLP(nn.Module):
    """A dueling network for vector observations: dense layers, then the same heads.

    Attributes:
        num_actions: Number of discrete actions.
        trunk: Widths of the layers before the heads.
        hidden: Widths of the hidden layers of each head.
        value_bias: Initial bias of the value head's output.
    """

    num_actions: int
    trunk: Sequence[int] = (128,)
    hidden: Sequence[int] = (64, 64)
    value_bias: float = 2.0

    @nn.compact
    def __call__(self, obs: Float[Array, "B ..."]) -> Float[Array, "B A"]:
        """Return the action values of a batch of vectors (other shapes are flattened)."""
        x = obs.reshape(obs.shape[0], -1)
        for width in self.trunk:
            x = elu(nn.Dense(width, kernel_init=kernel_init(TORCH_VARIANCE), bias_init=fan_in_uniform(x.shape[-1]))(x))
        return DuelingHeads(self.num_actions, self.hidden, self.value_bias)(x)
