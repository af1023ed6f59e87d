"""Dueling networks (and others) in Flax Linen, from float observations `[B, ...]` to `QOutputs`.

References:
    Mnih et al., Human-level control through deep reinforcement learning (2015), Methods, Model architecture;
    Wang et al., Dueling Network Architectures for Deep Reinforcement Learning (2016), eq. 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from jaxdqn.networks.convolution import Conv, Implementation
from jaxdqn.networks.heads import TORCH_VARIANCE, Activation, DuelingHeads, activate, fan_in_uniform, kernel_init
from jaxdqn.networks.outputs import Output, Values
from jaxdqn.types import QOutputs


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
        edge_columns: Copies of the leftmost column at the left of images, and of the rightmost one at their right.
        moments: Whether the heads receive the `row_moments` of the last feature maps instead of the maps.
        implementation: How to compute convolutions; None: by backend.
        dtype: Dtype in which convolutions and the heads' first layer compute; parameters and values are always float32.
        output: What is estimated for each action. See `jaxdqn.networks.outputs`.
        noisy_sigma: Initial deviation of the heads' noisy layers; None: no noise. See `NoisyDense`.
        layer_norm: Whether each hidden layer is normalised, over its channels, before its activation.
        dueling: Whether the heads are dueling. See `DuelingHeads`.
        activation: Of all hidden layers.
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
    edge_columns: int = 0
    moments: bool = False
    implementation: Implementation | None = None
    dtype: DTypeLike | None = None
    output: Output = Values()
    noisy_sigma: float | None = None
    layer_norm: bool = False
    dueling: bool = True
    activation: Activation = "elu"

    @property
    def smallest_frame(self) -> int:
        """Side of the smallest frame for which the last feature map is not empty."""
        side = 1
        for size, stride in zip(self.kernel_sizes[::-1], self.strides[::-1], strict=True):
            side = (side - 1) * stride + size
        return side

    @nn.compact
    def __call__(self, obs: Float[Array, "B H W C"], taus: Float[Array, "B N"] | None = None) -> QOutputs:
        """Return the outputs for a batch of normalised frame stacks; `taus` is for implicit quantiles only."""
        sides = ((0, 0), (0, 0), (self.edge_columns,) * 2, (0, 0))
        x = jnp.pad(obs, sides, mode="edge") if self.edge_columns else obs
        x = x if self.motion_gain is None else frame_differences(x, self.motion_gain, self.channels)
        # As in the heads: the first bias has PyTorch's initialisation, the others are 0.
        bias_init = fan_in_uniform(self.kernel_sizes[0] ** 2 * x.shape[-1])
        for features, size, stride in zip(self.features, self.kernel_sizes, self.strides, strict=True):
            weights = kernel_init(self.variance)
            conv = Conv(features, (size, size), (stride, stride), weights, bias_init, self.implementation, self.dtype)
            x = conv(x)
            x = activate(nn.LayerNorm()(x) if self.layer_norm else x, self.activation)
            bias_init = nn.initializers.zeros_init()
        x = row_moments(x) if self.moments else x
        x = x.reshape(x.shape[0], -1)
        return dueling_heads(self, self.variance, self.dtype)(x, taus)


class DuelingMLP(nn.Module):
    """A dueling network for vector observations: dense layers, then the same heads.

    Attributes:
        num_actions: Number of discrete actions.
        trunk: Widths of the layers before the heads.
        hidden: Widths of the hidden layers of each head.
        value_bias: Initial bias of the value head's output.
        output: What is estimated for each action. See `jaxdqn.networks.outputs`.
        noisy_sigma: Initial deviation of the heads' noisy layers; None: no noise. See `NoisyDense`.
        layer_norm: Whether each hidden layer is normalised, over its channels, before its activation.
        dueling: Whether the heads are dueling. See `DuelingHeads`.
        activation: Of all hidden layers.
    """

    num_actions: int
    trunk: Sequence[int] = (128,)
    hidden: Sequence[int] = (64, 64)
    value_bias: float = 2.0
    output: Output = Values()
    noisy_sigma: float | None = None
    layer_norm: bool = False
    dueling: bool = True
    activation: Activation = "elu"

    @nn.compact
    def __call__(self, obs: Float[Array, "B ..."], taus: Float[Array, "B N"] | None = None) -> QOutputs:
        """Return the outputs for a batch of vectors (other shapes are flattened); `taus` is for implicit quantiles."""
        x = obs.reshape(obs.shape[0], -1)
        for width in self.trunk:
            x = nn.Dense(width, kernel_init=kernel_init(TORCH_VARIANCE), bias_init=fan_in_uniform(x.shape[-1]))(x)
            x = activate(nn.LayerNorm()(x) if self.layer_norm else x, self.activation)
        return dueling_heads(self)(x, taus)


@runtime_checkable
class WithHeads(Protocol):
    """A network with the attributes of its heads. See `DuelingHeads`."""

    num_actions: int
    hidden: Sequence[int]
    value_bias: float
    output: Output
    noisy_sigma: float | None
    layer_norm: bool
    dueling: bool
    activation: Activation


def dueling_heads(network: WithHeads, variance: float = TORCH_VARIANCE, dtype: DTypeLike | None = None) -> DuelingHeads:
    """Return the heads of a network, inside its `__call__`."""
    return DuelingHeads(
        network.num_actions,
        network.hidden,
        network.value_bias,
        variance,
        dtype,
        network.output,
        network.noisy_sigma,
        network.layer_norm,
        network.dueling,
        network.activation,
    )
