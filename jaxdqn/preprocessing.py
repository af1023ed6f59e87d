"""From RGB frames to what the network sees: grey, resized, stacked, normalised.

The functions take NumPy or JAX arrays. JAX is imported only when a function receives a JAX array, so a process that
steps environments preprocesses its frames without it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num, Shaped, UInt8
from PIL import Image

GREY_WEIGHTS = np.array([0.2989, 0.587, 0.114], np.float32)
"""Luma weights of R, G and B, as in TorchRL and torchvision (ITU-R BT.601, rounded: they sum to 0.9999)."""


class ObservationStats(NamedTuple):
    """Mean and standard deviation of each channel, after the division by `scale` in `normalise`.

    Attributes:
        mean: `[C]` float32.
        std: `[C]` float32, above 0.
    """

    mean: Any
    std: Any


def grey_and_resize(
    frame: Num[Any, "H W *C"], size: tuple[int, int], *, colour: bool = False
) -> Float[Any, "H2 W2 *C2"]:
    """Make a frame grey and resize it, without rounding: float32 on the scale of the input, 0 to 255.

    Pillow resizes it, or JAX if it is a JAX array; both are bilinear with antialiasing, the filter of
    `torchvision.transforms.Resize(antialias=True)`. Each pixel is a mean weighted by a triangle that widens when the
    image shrinks, so that no input pixel is skipped. Pillow is used and not a matrix product, which takes a BLAS with
    threads 0.3 ms on an idle machine and up to 48 ms next to other work.

    Args:
        frame: RGB frame, or a grey one with one channel or without a channel axis.
        size: Height and width of the result; the aspect ratio is not kept.
        colour: Whether to keep the colours of an RGB frame; the result of a grey one never has a channel axis.

    Raises:
        ValueError: If a side of the frame or of the result is below 1.
    """
    if min(*frame.shape[:2], *size) < 1:
        raise ValueError(f"cannot resize {frame.shape[:2]} pixels to {size}: both sizes must be at least 1")
    plane = frame.astype(np.float32) if colour and frame.shape[2:] == (3,) else _grey(frame)
    if isinstance(plane, np.ndarray):
        if plane.ndim == 3:
            return np.stack([_resize(plane[..., channel], size) for channel in range(3)], axis=-1)
        return _resize(plane, size)
    import jax

    with jax.default_matmul_precision("highest"):  # TF32 on a GPU would change some pixels by one grey level
        return jax.image.resize(plane, (*size, *plane.shape[2:]), "linear", antialias=True)


def _resize(plane: Float[Any, "H W"], size: tuple[int, int]) -> Float[Any, "H2 W2"]:
    return np.asarray(Image.fromarray(plane).resize(size[::-1], Image.Resampling.BILINEAR))


def _grey(frame: Any) -> Any:
    grey = frame.astype(np.float32)
    if grey.ndim == 2:
        return grey
    return grey[..., 0] if grey.shape[-1] == 1 else grey @ GREY_WEIGHTS


def preprocess_frame(
    frame: Num[Any, "H W *C"], size: tuple[int, int] = (64, 64), *, colour: bool = False
) -> UInt8[Any, "H2 W2 *C2"]:
    """Convert one frame for replay: make it grey, resize it with antialiasing, round it to bytes.

    Args:
        frame: RGB or grey frame of values from 0 to 255, NumPy or JAX.
        size: Height and width of the result.
        colour: Whether to keep the colours of an RGB frame.

    References:
        Mnih et al., Human-level control through deep reinforcement learning (2015), Methods, Preprocessing.
    """
    resized = grey_and_resize(frame, size, colour=colour)
    return (resized + 0.5).clip(0, 255).astype(np.uint8)  # add 0.5 and truncate: rounds to the nearest


def array_namespace(x: Any) -> Any:
    """Return `numpy` for NumPy arrays, otherwise `jax.numpy`."""
    if isinstance(x, np.ndarray | np.generic):
        return np
    import jax.numpy as jnp

    return jnp


def push_frame(
    stack: Shaped[Any, "N ... K"], frame: Shaped[Any, "N ..."], first: Bool[Any, " N"]
) -> Shaped[Any, "N ... K"]:
    """Append the newest frame to each environment's stack, on NumPy or JAX arrays.

    The newest frame is last. When an episode starts, its first frame fills every slot, so that no frame of the
    previous episode remains. Frames `[N, H, W, C]` are stacked along their channels, others along a new axis.

    Args:
        stack: The `K` newest frames of each environment; `[N, H, W, K * C]` if frames have channels.
        frame: The next frame of each environment.
        first: Whether that frame starts an episode.
    """
    xp = array_namespace(stack)
    frame = frame if frame.ndim == stack.ndim else frame[..., None]
    channels = frame.shape[-1]
    pushed = xp.concatenate([stack[..., channels:], frame], axis=-1)
    filled = xp.concatenate([frame] * (stack.shape[-1] // channels), axis=-1)
    return xp.where(first.reshape(-1, *(1,) * (stack.ndim - 1)), filled, pushed)


def join_frames(frames: Shaped[Any, "..."], obs_ndim: int) -> Shaped[Any, "..."]:
    """Join frames to stacks: `[..., K, H, W, C]` to `[..., H, W, K * C]`, any other to `[..., *obs, K]`.

    Args:
        frames: Each stack's frames `[..., K, *obs]`, the newest last.
        obs_ndim: Axes of one frame.
    """
    xp = array_namespace(frames)
    axis = frames.ndim - obs_ndim - 1
    if obs_ndim != 3:
        return xp.moveaxis(frames, axis, -1)
    moved = xp.moveaxis(frames, axis, -2)
    return moved.reshape(*moved.shape[:-2], moved.shape[-2] * moved.shape[-1])


def next_stack(stack: Any, obs: Any, first: Bool[Any, " N"], frame_stack: int | None) -> Any:
    """Return what the agent sees next: the stack with the newest frame, or the observation itself without stacking.

    Args:
        stack: What the agent saw before `[N, ..., K]`; None at the very start: the frame then fills every slot.
        obs: Newest observation of each environment `[N, ...]`.
        first: Whether it starts an episode.
        frame_stack: Frames per stack `K`; None: no stacking.
    """
    if frame_stack is None:
        return obs
    if stack is None:
        return join_frames(array_namespace(obs).stack([obs] * frame_stack, axis=1), obs.ndim - 1)
    return push_frame(stack, obs, first)


def observation_stats(
    obs: Shaped[Any, "*B K"], minimum_std: float = 1e-6, *, scale: float | None = None
) -> ObservationStats:
    """Return the statistics of each channel of observations, for `normalise`.

    Mean and unbiased standard deviation over all axes except the last, `K` values each. The deviation is at least
    `minimum_std`, so that a channel that never changes does not cause a division by zero.

    Args:
        obs: Stacked frames or vectors.
        minimum_std: Smallest deviation.
        scale: Divisor of the observations; None: 255 for bytes, otherwise 1.

    Raises:
        ValueError: If there are fewer than two values per channel.
    """
    values = np.asarray(obs).reshape(-1, obs.shape[-1])
    if len(values) < 2:
        raise ValueError(f"statistics need at least 2 values per channel, got {len(values)}: roll out more frames")
    scale = byte_scale(values.dtype) if scale is None else scale
    mean = values.mean(axis=0, dtype=np.float64) / scale
    std = values.std(axis=0, dtype=np.float64, ddof=1) / scale
    return ObservationStats(mean.astype(np.float32), np.maximum(std, minimum_std).astype(np.float32))


def normalise(obs: Shaped[Any, "*B K"], stats: ObservationStats, *, scale: float | None = None) -> Float[Any, "*B K"]:
    """Return `(obs / scale - mean) / std`, per channel.

    Args:
        obs: Observations.
        stats: Their statistics.
        scale: Divisor of the observations; None: 255 for bytes, otherwise 1.
    """
    scale = byte_scale(obs.dtype) if scale is None else scale
    mean, std = (values[(None,) * (obs.ndim - 1)] for values in stats)  # of the rank of `obs`
    return (obs.astype(np.float32) / np.float32(scale) - mean) / std


def byte_scale(dtype: Any) -> float:
    """Return the divisor that brings values of a dtype to [0, 1]: 255 for bytes, otherwise 1."""
    return 255.0 if dtype == np.uint8 else 1.0
