"""The residual network of IMPALA.

References:
    Espeholt et al., IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner Architectures (2018),
    figure 3, right, without its LSTM.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from jaxdqn.networks.convolution import Conv, Implementation, same_padding
from jaxdqn.networks.dueling import dueling_heads
from jaxdqn.networks.heads import Activation, activate, kernel_init
from jaxdqn.networks.outputs import Output, Values
from jaxdqn.types import QOutputs

WINDOW, STRIDE = 3, 2  # of the pooling


def max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """Return the maximum of each 3x3 window, with stride 2 and `SAME` padding.

    The maximum of nine strided slices: on the CPU its gradient takes a sixth of the time of that of
    `flax.linen.max_pool`. Where maxima are equal, the gradient is split among them.
    """
    sides = [same_padding(side, WINDOW, STRIDE) for side in x.shape[1:3]]
    rows, columns = (-(-side // STRIDE) for side in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), *sides, (0, 0)), constant_values=-jnp.inf)
    last_row, last_column = (STRIDE * (count - 1) + 1 for count in (rows, columns))
    parts = [
        x[:, row : row + last_row : STRIDE, column : column + last_column : STRIDE]
        for row in range(WINDOW)
        for column in range(WINDOW)
    ]
    return reduce(jnp.maximum, parts)


class ImpalaCNN(nn.Module):
    """Three stages of a convolution, a pooling and two residual blocks, and then the heads of `DuelingCNN`.

    1,090,774 parameters for 84x84x4, six actions and a single head.

    Attributes:
        num_actions: Number of discrete actions.
        features: Channels of each stage.
        blocks: Residual blocks of each stage.
        hidden: Widths of the hidden layers of each head.
        value_bias: Initial bias of the value head's output.
        variance: Initial variance of weights times `fan_in`.
        implementation: How to compute convolutions; None: by backend.
        dtype: Dtype in which convolutions and the heads' first layer compute; parameters and values are always float32.
        output: What is estimated for each action. See `jaxdqn.networks.outputs`.
        noisy_sigma: Initial deviation of the heads' noisy layers; None: no noise. See `NoisyDense`.
        layer_norm: Whether each hidden layer is normalised, over its channels, before its activation.
        dueling: Whether the heads are dueling. See `DuelingHeads`.
        activation: Of all hidden layers.
    """

    num_actions: int
    features: Sequence[int] = (16, 32, 32)
    blocks: int = 2
    hidden: Sequence[int] = (256,)
    value_bias: float = 0.0
    variance: float = 1.0
    implementation: Implementation | None = None
    dtype: DTypeLike | None = None
    output: Output = Values()
    noisy_sigma: float | None = None
    layer_norm: bool = False
    dueling: bool = True
    activation: Activation = "relu"

    @property
    def smallest_frame(self) -> int:
        """Side of the smallest frame: with `SAME` padding, a pixel."""
        return 1

    @nn.compact
    def __call__(self, obs: Float[Array, "B H W C"], taus: Float[Array, "B N"] | None = None) -> QOutputs:
        """Return the outputs for a batch of normalised frame stacks; `taus` is for implicit quantiles only."""
        x = obs
        for features in self.features:
            x = max_pool(self._convolve(x, features))
            for _ in range(self.blocks):
                branch = self._convolve(self._activate(x), features)
                x = x + self._convolve(self._activate(branch), features)
        x = self._activate(x)
        return dueling_heads(self, self.variance, self.dtype)(x.reshape(x.shape[0], -1), taus)

    def _convolve(self, x: Float[Array, "B H W C"], features: int) -> Float[Array, "B H W F"]:
        weights, bias = kernel_init(self.variance), nn.initializers.zeros_init()
        return Conv(features, (3, 3), (1, 1), weights, bias, self.implementation, self.dtype, padding="SAME")(x)

    def _activate(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return activate(nn.LayerNorm()(x) if self.layer_norm else x, self.activation)
