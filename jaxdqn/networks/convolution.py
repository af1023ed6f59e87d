"""A convolution that is fast on the CPU as well: forward and both gradients in the one form that XLA has fast there.

XLA:CPU hands a convolution with channels last to Eigen, which packs patches into the cache as it multiplies. The
gradients that JAX derives come in other layouts: these are transposed, or leave the fast path altogether, and inside
`lax.scan` they are 5 to 9 times slower (jax-ml/jax #12868, openxla/xla #34273). So they are written by hand as
convolutions with channels last too. The programs that hold them are compiled by `jaxdqn.compilation.jit`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

Implementation = Literal["channels_last", "xla"]
Strides = tuple[int, int]


def default_implementation() -> Implementation:
    """`channels_last` where JAX computes on the CPU, `xla` elsewhere."""
    return "channels_last" if jax.default_backend() == "cpu" else "xla"


def micro_batch_size(batch_size: int) -> int:
    """The divisor of `batch_size` from 16 to 48 that is nearest to 32 on the CPU; the whole batch elsewhere.

    Also the whole batch where there is no such divisor. 32 was the fastest of 8, 16, 32, 64, 128 and 256: activations
    stay in the cache, and the weights of the dense layers are read a few times only.
    """
    sizes = [size for size in range(16, 49) if batch_size % size == 0]
    if default_implementation() == "xla" or not sizes:
        return batch_size
    return min(sizes, key=lambda size: abs(size - 32))


def space_to_depth(images: Float[Array, "B H W C"], block: Strides) -> Float[Array, "B H2 W2 D"]:
    """Blocks of `s` by `t` pixels laid into the channels, row by row.

    Args:
        images: Images whose sides are multiples of the block's.
        block: Height `s` and width `t` of a block.

    Returns:
        `[B, H / s, W / t, s * t * C]`.
    """
    batch, height, width, channels = images.shape
    vertical, horizontal = block
    blocks = images.reshape(batch, height // vertical, vertical, width // horizontal, horizontal, channels)
    return blocks.swapaxes(2, 3).reshape(batch, height // vertical, width // horizontal, -1)


def convolve_xla(
    inputs: Float[Array, "B H W C"],
    kernel: Float[Array, "KH KW C F"],
    strides: Strides = (1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
) -> Float[Array, "B H2 W2 F"]:
    """`out[b, y, x] = sum inputs[b, y*s + i, x*t + j] kernel[i, j]`, by XLA (cuDNN on a GPU).

    Args:
        inputs: Images, channels last.
        kernel: Weights in the layout of `flax.linen.Conv`.
        strides: Vertical and horizontal stride.
        padding: Zeros above and below, left and right.

    Returns:
        Images of `(H - KH) // s + 1` by `(W - KW) // t + 1` where nothing is padded.
    """
    return jax.lax.conv_general_dilated(inputs, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def to_unit_strides(
    inputs: Float[Array, "B H W C"], kernel: Float[Array, "KH KW C F"], strides: Strides
) -> tuple[Float[Array, "B H2 W2 D"], Float[Array, "KH2 KW2 D F"]]:
    """The same convolution with blocks of pixels as channels, so that it has no strides.

    A kernel that is no multiple of the strides is filled up with zeros, and so are images that end within it.
    """
    if strides == (1, 1):
        return inputs, kernel
    sizes, sides = kernel.shape[:2], inputs.shape[1:3]
    steps = [(side - size) // stride for side, size, stride in zip(sides, sizes, strides, strict=True)]
    filled = [-(-size // stride) * stride for size, stride in zip(sizes, strides, strict=True)]
    covered = [step * stride + size for step, stride, size in zip(steps, strides, filled, strict=True)]
    more = [max(end - side, 0) for end, side in zip(covered, sides, strict=True)]
    inputs = jnp.pad(inputs, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)))[:, : covered[0], : covered[1]]
    kernel = jnp.pad(kernel, ((0, filled[0] - sizes[0]), (0, filled[1] - sizes[1]), (0, 0), (0, 0)))
    return space_to_depth(inputs, strides), jnp.moveaxis(space_to_depth(jnp.moveaxis(kernel, -1, 0), strides), 0, -1)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def convolve_channels_last(
    inputs: Float[Array, "B H W C"], kernel: Float[Array, "KH KW C F"], bias: Float[Array, " F"], strides: Strides
) -> Float[Array, "B H2 W2 F"]:
    """`convolve_xla(inputs, kernel, strides) + bias`, with gradients that are convolutions with channels last.

    Few channels make short rows to pack: then blocks of pixels become channels first. Differentiable in reverse mode,
    as often as you like; for forward mode (`jax.jvp`) use `convolve_xla`.
    """
    if inputs.shape[-1] < 16:
        inputs, kernel = to_unit_strides(inputs, kernel, strides)
        strides = (1, 1)
    return convolve_xla(inputs, kernel, strides) + bias


def _forward(inputs: Array, kernel: Array, bias: Array, strides: Strides) -> tuple[Array, tuple[Array, Array]]:
    return convolve_channels_last(inputs, kernel, bias, strides), (inputs, kernel)


def _backward(strides: Strides, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array, Array]:
    (images, weights), undo = jax.vjp(partial(to_unit_strides, strides=strides), *residuals)
    height, width = weights.shape[:2]
    # Each pixel gathers what it gave: the cotangent, padded, with the kernel turned by half a circle.
    turned = weights[::-1, ::-1].swapaxes(2, 3)
    images_gradient = convolve_xla(cotangent, turned, padding=[(height - 1,) * 2, (width - 1,) * 2])
    # Channels take the place of the batch, and the batch that of the channels, over which is summed.
    weights_gradient = convolve_xla(images.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3))
    # As a product: summed over rows where they lie, in XLA's reduction every element would compute its own producers.
    rows = cotangent.reshape(-1, cotangent.shape[-1])
    bias_gradient = (jnp.ones((1, rows.shape[0]), rows.dtype) @ rows)[0]
    return (*undo((images_gradient, weights_gradient.transpose(1, 2, 0, 3))), bias_gradient)


convolve_channels_last.defvjp(_forward, _backward)


class Conv(nn.Module):
    """`flax.linen.Conv` without padding: same parameters, same numbers, computed as suits the backend.

    Attributes:
        features: Output channels.
        kernel_size: Height and width of the kernel.
        strides: Vertical and horizontal stride.
        kernel_init: Initialiser of `kernel` `[KH, KW, C, F]`.
        bias_init: Initialiser of `bias` `[F]`.
        implementation: `"channels_last"`, `"xla"`, or None for the backend's own.
        dtype: What it computes in; parameters are float32 always. None: what the inputs and parameters promote to.
    """

    features: int
    kernel_size: Sequence[int]
    strides: Sequence[int] = (1, 1)
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., Array] = nn.initializers.zeros_init()
    implementation: Implementation | None = None
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 F"]:
        """Convolve a batch of images; raises `ValueError` where the kernel is larger than the image."""
        height, width = self.kernel_size
        vertical, horizontal = self.strides
        if inputs.shape[1] < height or inputs.shape[2] < width:
            raise ValueError(
                f"kernel_size {height}x{width} does not fit images of {inputs.shape[1]}x{inputs.shape[2]}: "
                "use larger frames or a network with smaller kernels"
            )
        kernel = self.param("kernel", self.kernel_init, (height, width, inputs.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        inputs, kernel, bias = nn.dtypes.promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        if (self.implementation or default_implementation()) == "channels_last":
            return convolve_channels_last(inputs, kernel, bias, (vertical, horizontal))
        return convolve_xla(inputs, kernel, (vertical, horizontal)) + bias
