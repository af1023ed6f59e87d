"""A convolution that is fast on the CPU as well: patches and one matrix product.

XLA's convolution is slow on the CPU, three times slower than PyTorch's at batch 256, and 5 to 9 times slower
again inside `lax.scan` (jax-ml/jax #12868, openxla/xla #34273). A matrix product keeps its speed in both
places, so there the patches are sliced out, laid side by side and multiplied with the kernel at once. They are
`kernel height * kernel width / stride^2` times the size of the input: the learner feeds micro-batches of
`micro_batch_size` samples, whose patches stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Implementation = Literal["patches", "xla"]


def default_implementation() -> Implementation:
    """`patches` where JAX computes on the CPU, `xla` elsewhere."""
    return "patches" if jax.default_backend() == "cpu" else "xla"


def micro_batch_size(batch_size: int) -> int:
    """The divisor of `batch_size` from 4 to 16 that is nearest to 8 on the CPU; the whole batch elsewhere.

    Also the whole batch where there is no such divisor. 8 was the fastest of 4, 8, 16 and 32.
    """
    sizes = [size for size in range(4, 17) if batch_size % size == 0]
    if default_implementation() == "xla" or not sizes:
        return batch_size
    return min(sizes, key=lambda size: abs(size - 8))


def space_to_depth(images: Float[Array, "B H W C"], block: tuple[int, int]) -> Float[Array, "B H2 W2 D"]:
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


def convolve_patches(
    inputs: Float[Array, "B H W C"], kernel: Float[Array, "KH KW C F"], strides: tuple[int, int]
) -> Float[Array, "B H2 W2 F"]:
    """Convolution without padding, `out[b, y, x] = sum inputs[b, y*s + i, x*t + j] kernel[i, j]`, by one product.

    Where the strides divide the kernel, blocks of pixels become channels first, so that a patch is a few long
    slices and not many short ones: 4 and not 64 for an 8x8 kernel with stride 4. An update of `motion_cnn` then
    takes 0.84 of the time.

    Args:
        inputs: Images, channels last.
        kernel: Weights in the layout of `flax.linen.Conv`.
        strides: Vertical and horizontal stride.

    Returns:
        Images of `(H - KH) // s + 1` by `(W - KW) // t + 1`.
    """
    height, width = kernel.shape[:2]
    rows = (inputs.shape[1] - height) // strides[0] + 1
    columns = (inputs.shape[2] - width) // strides[1] + 1
    if max(strides) > 1 and height % strides[0] == 0 and width % strides[1] == 0:
        covered = inputs[:, : (rows - 1) * strides[0] + height, : (columns - 1) * strides[1] + width]
        blocks = jnp.moveaxis(space_to_depth(jnp.moveaxis(kernel, -1, 0), strides), 0, -1)
        return convolve_patches(space_to_depth(covered, strides), blocks, (1, 1))
    below, right = (rows - 1) * strides[0] + 1, (columns - 1) * strides[1] + 1
    slices = [
        inputs[:, i : i + below : strides[0], j : j + right : strides[1]] for i in range(height) for j in range(width)
    ]
    patches = jnp.concatenate(slices, axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def convolve_xla(
    inputs: Float[Array, "B H W C"], kernel: Float[Array, "KH KW C F"], strides: tuple[int, int]
) -> Float[Array, "B H2 W2 F"]:
    """The same as `convolve_patches`, by XLA's convolution (cuDNN on a GPU)."""
    return jax.lax.conv_general_dilated(
        inputs, kernel, strides, padding="VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


class Conv(nn.Module):
    """`flax.linen.Conv` without padding: same parameters, same numbers, computed as suits the backend.

    Attributes:
        features: Output channels.
        kernel_size: Height and width of the kernel.
        strides: Vertical and horizontal stride.
        kernel_init: Initialiser of `kernel` `[KH, KW, C, F]`.
        bias_init: Initialiser of `bias` `[F]`.
        implementation: `"patches"`, `"xla"`, or None for the backend's own.
    """

    features: int
    kernel_size: Sequence[int]
    strides: Sequence[int] = (1, 1)
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., Array] = nn.initializers.zeros_init()
    implementation: Implementation | None = None

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
        chosen = self.implementation or default_implementation()
        convolve = {"patches": convolve_patches, "xla": convolve_xla}[chosen]
        return convolve(inputs, kernel, (vertical, horizontal)) + bias
