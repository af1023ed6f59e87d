"""What is observed, told once: what replay holds of it, what the network sees, and what becomes of images.

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
"""Images whose sides are both at most this are taken as they are: grids, whose every pixel is a thing of its own."""

MOST_CHANNELS_FIRST = 16
"""Channels that may be recognised as the first axis of an image."""


class ObsSpec(NamedTuple):
    """One observation: as rows and replay hold it, and as the network sees it.

    Attributes:
        shape: `[H, W]` of a grey image, `[H, W, C]` of any other image, or any shape of a vector.
        dtype: `uint8` or `float32`.
        stack: Newest images that the network sees at once; None for vectors.
        scale: Bytes are divided by this before the network sees them; floats are seen as they are.
    """

    shape: tuple[int, ...]
    dtype: DTypeLike
    stack: int | None = None
    scale: float = 255.0

    @property
    def is_image(self) -> bool:
        """Whether it is an image, which convolutions take."""
        return self.stack is not None

    @property
    def channels(self) -> int:
        """Channels of one image: the last axis of a stack holds `channels * stack` of them."""
        return self.shape[2] if len(self.shape) == 3 else 1

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """What the network sees of one environment: `[H, W, C * stack]`, or the vector."""
        if self.stack is None:
            return self.shape
        return (*self.shape[:2], self.channels * self.stack) if len(self.shape) == 3 else (*self.shape, self.stack)


class ImageRule(NamedTuple):
    """How an image observation becomes what replay holds.

    Attributes:
        channels_first: Whether its first axis holds the channels.
        resized: Whether it is made grey (unless `colour`) and resized; else it is taken as it is.
        colour: Whether an image that is resized keeps its colours.
        size: Height and width after resizing.
        highest: Highest value that its space allows: what is white.
        stack: Frames to a stack where the config names none.
    """

    channels_first: bool
    resized: bool
    colour: bool
    size: tuple[int, int]
    highest: float
    stack: int

    def spec(self, shape: tuple[int, ...], dtype: DTypeLike, frame_stack: int | None = None) -> ObsSpec:
        """What replay holds of images of a shape and dtype."""
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
    """The rule for image observations of a shape.

    An image with sides of at most 32, or with other than 1 or 3 channels, is taken as it is; any other is made grey,
    unless `colour`, and resized. One that already is grey and of the wanted size needs nothing.

    Args:
        shape: `[H, W]`, `[H, W, C]` or `[C, H, W]`. Channels are first if the first axis is at most 16 and smaller than
            both others.
        dtype: `uint8`, `bool` or a float, of values in [0, 1].
        highest: Highest value that the space allows.
        frame_size: Side to which images are resized.
        colour: Whether colours are kept.
        stacked: Whether the channels are frames that a wrapper has stacked: then it is taken as it is.
    """
    first = len(shape) == 3 and shape[0] <= MOST_CHANNELS_FIRST and shape[0] < min(shape[1:])
    sides = shape[1:] if first else shape[:2]
    channels = 1 if len(shape) == 2 else shape[0] if first else shape[2]
    size = (frame_size, frame_size)
    wanted = shape == size and np.dtype(dtype) == np.uint8
    as_it_is = stacked or max(sides) <= SMALL_SIDE or channels not in (1, 3)
    white = float(highest) if np.dtype(dtype) == np.uint8 and highest > 0 else 1.0
    return ImageRule(first, not as_it_is and not wanted, colour, size, white, 4 if wanted or not as_it_is else 1)


def apply_rule(rule: ImageRule, image: Shaped[Any, "..."]) -> Shaped[Any, "..."]:
    """One image, NumPy or JAX, as replay holds it: `uint8`, or `float32` where floats are taken as they are."""
    if rule.channels_first:
        image = array_namespace(image).moveaxis(image, 0, -1)
    if not rule.resized:
        return image.astype(np.float32 if np.issubdtype(image.dtype, np.floating) else np.uint8)
    if rule.highest != 255.0:  # to bytes' range before it is rounded to bytes
        image = image.astype(np.float32) * np.float32(255.0 / rule.highest)
    return preprocess_frame(image, rule.size, colour=rule.colour)


def storage_dtype(dtype: DTypeLike) -> np.dtype:
    """What rows hold of an observation's dtype: bytes and truth values as bytes, all else as float32."""
    return np.dtype(np.uint8 if np.dtype(dtype) in (np.uint8, np.bool_) else np.float32)


def spec_from(config: Config, shape: tuple[int, ...] | None, dtype: DTypeLike | None) -> ObsSpec:
    """What is observed, from a config and the shape that replay holds: for code that has no environment to ask.

    Images if `config.pixels`, or if it is None and there are two or three axes of bytes; stacked `config.frame_stack`
    at a time, or 4 of grey ones and 1 of others.
    """
    if shape is None or dtype is None:
        raise ValueError("obs must be given, or obs_shape and obs_dtype in its place")
    images = config.pixels
    if images is None:
        images = len(shape) in (2, 3) and np.dtype(dtype) == np.uint8
    return ObsSpec(shape, dtype, (config.frame_stack or (4 if len(shape) == 2 else 1)) if images else None)


USUAL_FRAMES = 500
"""Images of a rollout where the config leaves it open."""


MINIMUM_STD = 0.01
"""Smallest deviation by which a run divides: a channel that hardly changes in the rollout may change later."""


def stats_frames(config: Config, obs: ObsSpec) -> int:
    """Images of a random rollout whose statistics normalise what a run observes; 0 for none.

    Where the config leaves it open, grids are not normalised: of their channels some may be empty in a random rollout.
    On jaxdqn/Ball-v0, statistics were what let a CNN learn within 20,000 frames.
    """
    if not obs.is_image:
        return 0
    if config.normalisation_frames is None:
        return USUAL_FRAMES if max(obs.shape[:2]) > SMALL_SIDE else 0
    return config.normalisation_frames


def stats_of(stacks: np.ndarray, obs: ObsSpec) -> ObservationStats:
    """The statistics of the stacks of a rollout, as the network is given them."""
    return observation_stats(stacks, MINIMUM_STD, scale=obs.scale if obs.dtype == np.uint8 else None)
