"""What is observed: how replay holds it, what the network sees, and how images are converted.

Nothing here imports JAX or gymnasium, so that a process that only steps environments starts quickly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped
from numpy.typing import DTypeLike

from jaxdqn.config import Config
from jaxdqn.preprocessing import ObservationStats, array_namespace, observation_stats, preprocess_frame

SMALL_SIDE = 32
"""Images with both sides at most this are not resized: they are grids, in which each pixel has its own meaning."""

MAX_CHANNELS_FIRST = 16
"""Largest first axis of an image that is recognised as channels."""


class ObsSpec(NamedTuple):
    """Spec of one observation: how rows and replay hold it, and how the network sees it.

    Attributes:
        shape: `[H, W]` of a grey image, `[H, W, C]` of any other image, or the shape of a vector.
        dtype: `uint8` or `float32`.
        stack: Number of newest images that the network sees at once; None for vectors.
        scale: Divisor of bytes before the network sees them; floats are not scaled.
    """

    shape: tuple[int, ...]
    dtype: DTypeLike
    stack: int | None = None
    scale: float = 255.0

    @property
    def is_image(self) -> bool:
        """Whether it is an image, for convolutions."""
        return self.stack is not None

    @property
    def channels(self) -> int:
        """Channels of one image; the last axis of a stack has `channels * stack`."""
        return self.shape[2] if len(self.shape) == 3 else 1

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """Shape that the network sees of one environment: `[H, W, C * stack]`, or that of the vector."""
        if self.stack is None:
            return self.shape
        return (*self.shape[:2], self.channels * self.stack) if len(self.shape) == 3 else (*self.shape, self.stack)


class ImageRule(NamedTuple):
    """How an image observation is converted for replay.

    Attributes:
        channels_first: Whether the first axis is the channels.
        resized: Whether it is made grey (unless `colour`) and resized; otherwise it is unchanged.
        colour: Whether a resized image keeps its colours.
        size: Height and width after resizing.
        highest: Highest value in its space: white.
        stack: Frames per stack if the config does not set it.
    """

    channels_first: bool
    resized: bool
    colour: bool
    size: tuple[int, int]
    highest: float
    stack: int

    def spec(self, shape: tuple[int, ...], dtype: DTypeLike, frame_stack: int | None = None) -> ObsSpec:
        """Return the spec of images with this shape and dtype."""
        if self.channels_first:
            shape = (*shape[1:], shape[0])
        held = np.dtype(np.float32 if np.issubdtype(dtype, np.floating) and not self.resized else np.uint8)
        if self.resized:
            shape = (*self.size, 3) if self.colour and shape[2:] == (3,) else self.size
        scale = 255.0 if self.resized else self.highest
        return ObsSpec(shape, held, self.stack if frame_stack is None else frame_stack, scale)


def image_rule(
    shape: tuple[int, ...],
    dtype: DTypeLike,
    highest: float,
    *,
    frame_size: int,
    colour: bool = False,
    stacked: bool = False,
) -> ImageRule:
    """Return the rule for image observations of a shape.

    An image with sides of at most 32, or with other than 1 or 3 channels, is unchanged; any other is made grey, unless
    `colour`, and resized. A grey image that already has the target size needs no conversion.

    Args:
        shape: `[H, W]`, `[H, W, C]` or `[C, H, W]`. Channels are first if the first axis is at most 16 and smaller than
            both others.
        dtype: `uint8`, `bool` or a float, of values in [0, 1].
        highest: Highest value in the space.
        frame_size: Height and width of resized images.
        colour: Whether to keep colours.
        stacked: Whether the channels are frames stacked by a wrapper; the image is then unchanged.
    """
    channels_first = len(shape) == 3 and shape[0] <= MAX_CHANNELS_FIRST and shape[0] < min(shape[1:])
    sides = shape[1:] if channels_first else shape[:2]
    channels = 1 if len(shape) == 2 else shape[0] if channels_first else shape[2]
    size = (frame_size, frame_size)
    converted = shape == size and np.dtype(dtype) == np.uint8
    unchanged = stacked or max(sides) <= SMALL_SIDE or channels not in (1, 3)
    white = float(highest) if np.dtype(dtype) == np.uint8 and highest > 0 else 1.0
    resized = not unchanged and not converted
    return ImageRule(channels_first, resized, colour, size, white, 4 if converted or not unchanged else 1)


def apply_rule(rule: ImageRule, image: Shaped[Any, "..."]) -> Shaped[Any, "..."]:
    """Convert one image, NumPy or JAX, for replay: to `uint8`, or to `float32` if it is an unchanged float image."""
    if rule.channels_first:
        image = array_namespace(image).moveaxis(image, 0, -1)
    if not rule.resized:
        return image.astype(np.float32 if np.issubdtype(image.dtype, np.floating) else np.uint8)
    if rule.highest != 255.0:  # to 0..255, before rounding to bytes
        image = image.astype(np.float32) * np.float32(255.0 / rule.highest)
    return preprocess_frame(image, rule.size, colour=rule.colour)


def storage_dtype(dtype: DTypeLike) -> np.dtype:
    """Return the dtype in rows for an observation's dtype: bytes for bytes and booleans, otherwise float32."""
    return np.dtype(np.uint8 if np.dtype(dtype) in (np.uint8, np.bool_) else np.float32)


def spec_from(config: Config, shape: tuple[int, ...] | None, dtype: DTypeLike | None) -> ObsSpec:
    """Return the spec for a config and an observation's shape and dtype in replay, for code without an environment.

    Observations are images if `config.pixels`, or if it is None and they are bytes with two or three axes. A stack has
    `config.frame_stack` images; if that is None, 4 if they are grey, otherwise 1.

    Raises:
        ValueError: If the shape or the dtype is None.
    """
    if shape is None or dtype is None:
        raise ValueError("obs is missing: pass it, or obs_shape and obs_dtype")
    images = config.pixels
    if images is None:
        images = len(shape) in (2, 3) and np.dtype(dtype) == np.uint8
    return ObsSpec(shape, dtype, (config.frame_stack or (4 if len(shape) == 2 else 1)) if images else None)


DEFAULT_STATS_FRAMES = 500
"""Images of the random rollout if the config does not set a number."""

MINIMUM_STD = 0.01
"""Smallest deviation for normalisation: a channel that hardly changes in the rollout may change later."""


def stats_frames(config: Config, obs: ObsSpec) -> int:
    """Return the number of images of the random rollout whose statistics normalise observations; 0: no normalisation.

    By default grids are not normalised: some of their channels may be empty in a random rollout. On jaxdqn/Ball-v0, a
    CNN learned within 20,000 frames only with normalisation.
    """
    if not obs.is_image:
        return 0
    if config.normalisation_frames is None:
        return DEFAULT_STATS_FRAMES if max(obs.shape[:2]) > SMALL_SIDE else 0
    return config.normalisation_frames


def stats_of(stacks: np.ndarray, obs: ObsSpec) -> ObservationStats:
    """Return the statistics of a rollout's stacks, for normalisation before the network."""
    return observation_stats(stacks, MINIMUM_STD, scale=obs.scale if obs.dtype == np.uint8 else None)
