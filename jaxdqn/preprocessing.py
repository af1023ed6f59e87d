"""From RGB frames to what the network sees: grey, resized, stacked, normalised.

`preprocess_frame` works on NumPy and on JAX arrays alike, and this file imports JAX only when it is handed one:
a process that steps environments preprocesses its frames without it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num, Shaped, UInt8
from PIL import Image

GREY_WEIGHTS = np.array([0.2989, 0.587, 0.114], np.float32)
"""Luma of R, G and B, as TorchRL and torchvision have them (ITU-R BT.601, rounded: they sum to 0.9999)."""


class ObservationStats(NamedTuple):
    """Mean and standard deviation of each channel, on the scale on which observations are normalised.

    Attributes:
        mean: `[C]` float32.
        std: `[C]` float32, above 0.
    """

    mean: Any
    std: Any


def grey_and_resize(frame: UInt8[Any, "H W *C"], size: tuple[int, int]) -> Float[Any, "H2 W2"]:
    """Grey, then resize, before rounding: float32 on the scale of the input, 0 to 255.

    Resized by Pillow, or by JAX where the frame is JAX's: bilinear with antialiasing in both, the filter of
    `torchvision.transforms.Resize(antialias=True)`. Each pixel is the mean of those below a triangle that grows when
    the image shrinks, so that none is skipped. Pillow rather than a product of matrices, which a BLAS with threads
    takes 0.3 ms for on an idle machine and up to 48 ms for beside other work.

    Args:
        frame: RGB frame, or a grey one with one channel or without a channel axis.
        size: Height and width of the result; the aspect is not kept.

    Raises:
        ValueError: If a side of the frame or of the result is below 1.
    """
    if min(*frame.shape[:2], *size) < 1:
        raise ValueError(f"cannot resize {frame.shape[:2]} pixels to {size}: both sizes must be at least 1")
    if isinstance(frame, np.ndarray):
        return np.asarray(Image.fromarray(_grey(frame)).resize(size[::-1], Image.Resampling.BILINEAR))
    import jax

    with jax.default_matmul_precision("highest"):  # TF32 on a GPU would be off by a grey level here and there
        return jax.image.resize(_grey(frame), size, "linear", antialias=True)


def _grey(frame: Any) -> Any:
    grey = frame.astype(np.float32)
    if grey.ndim == 2:
        return grey
    return grey[..., 0] if grey.shape[-1] == 1 else grey @ GREY_WEIGHTS


def preprocess_frame(frame: UInt8[Any, "H W *C"], size: tuple[int, int] = (64, 64)) -> UInt8[Any, "H2 W2"]:
    """One frame as replay holds it: grey, resized with antialiasing, rounded to a byte.

    Args:
        frame: RGB or grey frame, NumPy or JAX.
        size: Height and width of the result.

    References:
        Mnih et al., Human-level control through deep reinforcement learning (2015), Methods, Preprocessing.
    """
    return (grey_and_resize(frame, size) + 0.5).clip(0, 255).astype(np.uint8)  # half a level up, then floor: rounds


def array_namespace(x: Any) -> Any:
    """`numpy` for what is NumPy's, `jax.numpy` for all else."""
    if isinstance(x, np.ndarray | np.generic):
        return np
    import jax.numpy as jnp

    return jnp


def push_frame(
    stack: Shaped[Any, "N ... K"], frame: Shaped[Any, "N ..."], first: Bool[Any, " N"]
) -> Shaped[Any, "N ... K"]:
    """Append the newest frame to each environment's stack, on NumPy or JAX arrays.

    The newest frame is last. Where an episode starts, its first frame fills every slot, so that no frame of the
    episode before remains.

    Args:
        stack: The `K` newest frames of each environment.
        frame: The next frame of each.
        first: Whether that frame opens an episode.
    """
    xp = array_namespace(stack)
    frame = frame[..., None]
    pushed = xp.concatenate([stack[..., 1:], frame], axis=-1)
    return xp.where(first.reshape(-1, *(1,) * (stack.ndim - 1)), frame, pushed)


def next_stack(stack: Any, obs: Any, first: Bool[Any, " N"], frame_stack: int | None) -> Any:
    """What the agent sees next: the stack with the newest frame, or the observation itself where nothing is stacked.

    Args:
        stack: What it saw before `[N, ..., K]`; None at the very start, where the frame fills every slot.
        obs: Newest observation of each environment `[N, ...]`.
        first: Whether it opens an episode.
        frame_stack: `K`, or None.
    """
    if frame_stack is None:
        return obs
    if stack is None:
        return array_namespace(obs).repeat(obs[..., None], frame_stack, axis=-1)
    return push_frame(stack, obs, first)


def observation_stats(obs: UInt8[Any, "B H W K"], minimum_std: float = 1e-6) -> ObservationStats:
    """Statistics of each channel of stacked frames, on the scale 0 to 1.

    Mean and unbiased standard deviation over batch, height and width, `K` values each; the deviation is at least
    `minimum_std`, so that a channel that never changes does not divide by zero.

    Raises:
        ValueError: If there are fewer than two values a channel.
    """
    values = np.asarray(obs).reshape(-1, obs.shape[-1])
    if len(values) < 2:
        raise ValueError(f"statistics need at least 2 values a channel, got {len(values)}: roll out more frames")
    mean = values.mean(axis=0, dtype=np.float64) / 255
    std = values.std(axis=0, dtype=np.float64, ddof=1) / 255
    return ObservationStats(mean.astype(np.float32), np.maximum(std, minimum_std).astype(np.float32))


def normalise(obs: Num[Any, "*B K"], stats: ObservationStats) -> Float[Any, "*B K"]:
    """`(obs - mean) / std` a channel; bytes are first divided by 255."""
    scale = 255.0 if obs.dtype == np.uint8 else 1.0
    return (obs.astype(np.float32) / np.float32(scale) - stats.mean) / stats.std
