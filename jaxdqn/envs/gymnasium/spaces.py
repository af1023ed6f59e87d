"""Decide from the observation space alone whether observations are images or vectors, and refuse all others."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from jaxdqn.observations import SMALL_SIDE, ImageRule, ObsSpec, image_rule, storage_dtype

SMALLEST_SIDE = 16
"""Smallest side of an image that is resized if `pixels` is None."""


def is_image(space: gym.Space) -> bool:
    """Return whether a space holds images: two or three axes of uint8, bool, or floats in [0, 1]."""
    if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (2, 3) or 0 in space.shape:
        return False
    if np.issubdtype(space.dtype, np.floating):
        return bool((space.low >= 0).all() and (space.high <= 1).all())
    return space.dtype in (np.uint8, np.bool_)


def image_rule_of(space: gym.spaces.Box, frame_size: int, *, colour: bool = False, stacked: bool = False) -> ImageRule:
    """Return how the images of a space become what replay holds. See `image_rule`."""
    highest = float(np.max(space.high)) if space.dtype == np.uint8 else 1.0
    return image_rule(
        space.shape, np.dtype(space.dtype), highest, frame_size=frame_size, colour=colour, stacked=stacked
    )


def may_be_stacked_vectors(space: gym.Space) -> bool:
    """Return whether an image is so narrow that it may be a stack of vectors, such as four times Atari's RAM."""
    return is_image(space) and min(space.shape[:2]) < SMALLEST_SIDE <= SMALL_SIDE < max(space.shape)  # type: ignore[index, arg-type]


def vector_spec(space: gym.spaces.Box) -> ObsSpec:
    """Return what replay holds of vectors: bytes are divided by the space's highest value, floats stay as they are."""
    highest = float(np.max(space.high)) if space.dtype == np.uint8 else 1.0
    return ObsSpec(space.shape, storage_dtype(np.dtype(space.dtype)), None, highest if highest > 0 else 255.0)


def learns_from_images(space: gym.Space, pixels: bool | None, name: str) -> bool:
    """Return whether the agent learns from images: as `pixels` says, or if it is None, as the space says.

    Args:
        space: Space of one observation.
        pixels: Whether the agent learns from images. See `Config`.
        name: Name of the environment, for messages.

    Raises:
        ValueError: If the agent cannot learn from observations of this space.
    """
    box = isinstance(space, gym.spaces.Box)
    axes = len(space.shape) if isinstance(space, gym.spaces.Box) else 0
    found = f"env {name} has observations {' '.join(str(space).split())}"
    if box and 0 in space.shape:  # type: ignore[operator]  # a Box has a shape
        raise ValueError(f"{found}: they are empty, so there is nothing to learn from")
    if pixels is False or (pixels is None and box and not is_image(space) and axes < 3):
        if not box:
            raise ValueError(
                f"{found}: --no-pixels needs a Box of numbers; gymnasium.wrappers.FlattenObservation makes one from "
                "most spaces"
            )
        return False
    if pixels is None and axes == 2 and may_be_stacked_vectors(space):
        raise ValueError(
            f"{found}: an image, or a stack of vectors? set pixels to True for an image, to False for vectors"
        )
    if is_image(space):
        return True
    if axes >= 2:
        raise ValueError(
            f"{found}: images must be uint8, bool, or floats with bounds in [0, 1]; wrap env to convert them, or set "
            "pixels to False to learn from the numbers as a vector"
        )
    if pixels is None:
        raise ValueError(
            f"{found}: neither images nor a Box of numbers; gymnasium.wrappers.FlattenObservation makes a Box from "
            "most spaces, and pixels set to True learns from what render() draws"
        )
    return True


def conform_to_space(obs: Any, space: gym.spaces.Box, name: str) -> np.ndarray:
    """Return an observation as an array of its space's shape and dtype.

    Raises:
        ValueError: If it has another shape, or values that the dtype cannot hold.
    """
    given = np.asarray(obs)
    if given.shape != space.shape:
        raise ValueError(f"env {name} gives an observation of shape {given.shape}, but its space says {space.shape}")
    if given.dtype == space.dtype:
        return given
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            cast = given.astype(space.dtype)
        fits = np.issubdtype(space.dtype, np.floating) or bool((cast == given).all())
    except (TypeError, ValueError) as error:
        raise ValueError(f"env {name} gives an observation that is not an array of numbers: {error}") from error
    if not fits:
        raise ValueError(
            f"env {name} gives {given.dtype} observations with values that its space's {space.dtype} cannot hold: "
            "change the space to match the observations"
        )
    return cast


def check_range(image: np.ndarray, highest: float, name: str, *, resized: bool) -> None:
    """Check that the values of an image are in the range of its space; others would be clipped or wrongly scaled.

    Args:
        image: Image in the dtype of its space.
        highest: Highest value that the space allows; the lowest is 0 or above.
        name: Name of the environment, for messages.
        resized: Whether the image becomes bytes, in which NaN and infinity can no longer be seen. If not, they are
            found later.

    Raises:
        FloatingPointError: If a value is NaN or infinite, and `resized`.
        ValueError: If all values are finite and one is out of range.
    """
    floats = np.issubdtype(image.dtype, np.floating)
    if not floats and (highest == 255.0 or image.dtype == np.bool_):
        return
    if ((image >= 0) & (image <= highest)).all():
        return
    wrong = image[~np.isfinite(image)]
    if len(wrong) == 0:
        low, high = image.min(), image.max()
        raise ValueError(
            f"env {name} gives an image with values from {low:g} to {high:g}, but its space allows 0 to {highest:g}"
        )
    if resized:
        raise FloatingPointError(f"an observation of env {name} is {wrong.flat[0]}")


def picture_bytes(picture: Any, name: str) -> np.ndarray:
    """Return the result of `render()` as uint8 `[H, W]`, `[H, W, 1]` or `[H, W, 3]`; transparency becomes black.

    Raises:
        ValueError: If it is not a picture.
    """
    if picture is None:
        raise ValueError(f'env {name} draws nothing: render() returns None; make it with render_mode="rgb_array"')
    try:
        found = np.asarray(picture)
    except ValueError:
        found = np.asarray(None)
    if found.ndim not in (2, 3) or (found.ndim == 3 and found.shape[2] not in (1, 3, 4)) or 0 in found.shape:
        raise ValueError(f"env {name} draws no picture: render() returns {found.dtype} of shape {found.shape}")
    if found.dtype == np.bool_:
        found = found.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(found.dtype, np.floating):
        if not ((found >= 0) & (found <= 1)).all():
            raise ValueError(f"env {name} draws floats outside [0, 1]: render() must return uint8, or floats in [0, 1]")
        found = (found * 255 + 0.5).astype(np.uint8)
    elif found.dtype != np.uint8:
        if not np.issubdtype(found.dtype, np.integer) or found.min() < 0 or found.max() > 255:
            raise ValueError(f"env {name} draws {found.dtype} that are not bytes: render() must return values 0 to 255")
        found = found.astype(np.uint8)
    if found.shape[2:] == (4,):
        opaque = found[..., 3:].astype(np.uint16)
        found = ((found[..., :3] * opaque + 127) // 255).astype(np.uint8)
    return found
