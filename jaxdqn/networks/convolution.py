"""A convolution that is also fast on the CPU: forward and both gradients use the one layout that is fast in XLA:CPU.

XLA:CPU computes a convolution with channels last by Eigen, which packs patches into the cache as it multiplies. The
gradients that JAX derives have other layouts: they are transposed, or miss the fast path completely, and inside
`lax.scan` they are 5 to 9 times slower (jax-ml/jax #12868, openxla/xla #34273). So they are written by hand, also as
convolutions with channels last. `jaxdqn.compilation.jit` compiles the programs that contain them.
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
    """Return `channels_last` if JAX computes on the CPU, otherwise `xla`."""
    return "channels_last" if jax.default_backend() == "cpu" else "xla"


def micro_batch_size(batch_size: int) -> int:
    """Return, on the CPU, the divisor of `batch_size` from 16 to 48 that is nearest to 32; otherwise `batch_size`.

    Also `batch_size` if there is no such divisor. 32 was the fastest of 8, 16, 32, 64, 128 and 256: activations stay
    in the cache, and the weights of the dense layers are read only a few times.
    """
    sizes = [size for size in range(16, 49) if batch_size % size == 0]
    if default_implementation() == "xla" or not sizes:
        return batch_size
    return min(sizes, key=lambda size: abs(size - 32))


def space_to_depth(images: Float[Array, "B H W C"], block: Strides) -> Float[Array, "B H2 W2 D"]:
    """Move blocks of `s` by `t` pixels into the channels, row by row.

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
    """Compute `out[b, y, x] = sum inputs[b, y*s + i, x*t + j] kernel[i, j]` by XLA (cuDNN on a GPU).

    Args:
        inputs: Images, channels last.
        kernel: Weights in the layout of `flax.linen.Conv`.
        strides: Vertical and horizontal stride.
        padding: Zeros above and below, left and right.

    Returns:
        Images of `(H - KH) // s + 1` by `(W - KW) // t + 1` without padding.
    """
    return jax.lax.conv_general_dilated(inputs, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def to_unit_strides(
    inputs: Float[Array, "B H W C"], kernel: Float[Array, "KH KW C F"], strides: Strides
) -> tuple[Float[Array, "B H2 W2 D"], Float[Array, "KH2 KW2 D F"]]:
    """Return inputs and kernel of the same convolution without strides, with blocks of pixels as channels.

    A kernel whose size is not a multiple of the strides is padded with zeros, as are images that end within it.
    """
    if strides == (1, 1):
        return inputs, kernel
    sizes, sides = kernel.shape[:2], inputs.shape[1:3]
    steps = [(side - size) // stride for side, size, stride in zip(sides, sizes, strides, strict=True)]
    padded = [-(-size // stride) * stride for size, stride in zip(sizes, strides, strict=True)]
    covered = [step * stride + size for step, stride, size in zip(steps, strides, padded, strict=True)]
    missing = [max(end - side, 0) for end, side in zip(covered, sides, strict=True)]
    inputs = jnp.pad(inputs, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))[:, : covered[0], : covered[1]]
    kernel = jnp.pad(kernel, ((0, padded[0] - sizes[0]), (0, padded[1] - sizes[1]), (0, 0), (0, 0)))
    return space_to_depth(inputs, strides), jnp.moveaxis(space_to_depth(jnp.moveaxis(kernel, -1, 0), strides), 0, -1)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def convolve_channels_last(
    inputs: Float[Array, "B H W C"], kernel: Float[Array, "KH KW C F"], bias: Float[Array, " F"], strides: Strides
) -> Float[Array, "B H2 W2 F"]:
    """`convolve_xla(inputs, kernel, strides) + bias`, with gradients that are convolutions with channels last.

    With few channels the rows to pack are short, so blocks of pixels are moved into the channels first. Differentiable
    in reverse mode, any number of times; for forward mode (`jax.jvp`) use `convolve_xla`.
    """
    if inputs.shape[-1] < 16:
        inputs, kernel = to_unit_strides(inputs, kernel, strides)
        strides = (1, 1)
    return convolve_xla(inputs, kernel, strides) + bias[None, None, None]


def _forward(inputs: Array, kernel: Array, bias: Array, strides: Strides) -> tuple[Array, tuple[Array, Array]]:
    return convolve_channels_last(inputs, kernel, bias, strides), (inputs, kernel)


def _backward(strides: Strides, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array, Array]:
    (images, weights), input_vjp = jax.vjp(partial(to_unit_strides, strides=strides), *residuals)
    height, width = weights.shape[:2]
    # Inputs: the padded cotangent, convolved with the kernel rotated by 180 degrees.
    rotated = weights[::-1, ::-1].swapaxes(2, 3)
    images_gradient = convolve_xla(cotangent, rotated, padding=[(height - 1,) * 2, (width - 1,) * 2])
    # Kernel: batch and channels change places, so that the convolution sums over the batch.
    weights_gradient = convolve_xla(images.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3))
    # Bias: a matrix product, as in XLA's reduction of the rows every element would recompute its own producers.
    rows = cotangent.reshape(-1, cotangent.shape[-1])
    bias_gradient = (jnp.ones((1, rows.shape[0]), rows.dtype) @ rows)[0]
    return (*input_vjp((images_gradient, weights_gradient.transpose(1, 2, 0, 3))), bias_gradient)


convolve_channels_last.defvjp(_forward, _backward)


def same_padding(side: int, size: int, stride: int) -> tuple[int, int]:
    """Return the pixels before and after a side with `SAME` padding, so that `ceil(side / stride)` windows fit."""
    missing = max((-(-side // stride) - 1) * stride + size - side, 0)
    return missing // 2, missing - missing // 2


class Conv(nn.Module):
    """`flax.linen.Conv`: same parameters, same numbers, computed in the way that suits the backend.

    Attributes:
        features: Output channels.
        kernel_size: Height and width of the kernel.
        strides: Vertical and horizontal stride.
        kernel_init: Initialiser of `kernel` `[KH, KW, C, F]`.
        bias_init: Initialiser of `bias` `[F]`.
        implementation: `"channels_last"`, `"xla"`, or None for the default of the backend.
        dtype: Dtype of the computation; parameters are always float32. None: promoted from inputs and parameters.
        padding: `"VALID"`: none; `"SAME"`: zeros, so that a stride of 1 keeps the size.
    """

    features: int
    kernel_size: Sequence[int]
    strides: Sequence[int] = (1, 1)
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., Array] = nn.initializers.zeros_init()
    implementation: Implementation | None = None
    dtype: DTypeLike | None = None
    padding: Literal["VALID", "SAME"] = "VALID"

    @nn.compact
    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 F"]:
        """Convolve a batch of images; raise `ValueError` if the kernel is larger than the padded image."""
        height, width = self.kernel_size
        vertical, horizontal = self.strides
        if self.padding == "SAME":
            rows, columns = inputs.shape[1:3]
            sides = same_padding(rows, height, vertical), same_padding(columns, width, horizontal)
            inputs = jnp.pad(inputs, ((0, 0), *sides, (0, 0)))
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
        return convolve_xla(inputs, kernel, (vertical, horizontal)) + bias[None, None, None]
