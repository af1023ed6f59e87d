"""Which observations of an environment are images, which are vectors, and what is refused: told by its space alone."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from jaxdqn.observations import SMALL_SIDE, ImageRule, ObsSpec, image_rule, storage_dtype

SMALLEST_SIDE = 16
"""Of an image that is resized and that nobody has said to be one."""


def is_image(space: gym.Space) -> bool:
    """Whether a space holds images: two or three axes of bytes, of truth values, or of floats in [0, 1]."""
    if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (2, 3) or 0 in space.shape:
        return False
    if np.issubdtype(space.dtype, np.floating):
        return bool((space.low >= 0).all() and (space.high <= 1).all())
    return space.dtype in (np.uint8, np.bool_)


def image_rule_of(space: gym.spaces.Box, frame_size: int, *, colour: bool = False, stacked: bool = False) -> ImageRule:
    """What becomes of the images of a space; `stacked` as `image_rule` has it."""
    highest = float(np.max(space.high)) if space.dtype == np.uint8 else 1.0
    return image_rule(space.shape, space.dtype, highest, frame_size=frame_size, colour=colour, stacked=stacked)


def is_band(space: gym.Space) -> bool:
    """Whether an image is so long that it may as well be a stack of vectors, such as four times Atari's RAM."""
    return is_image(space) and min(space.shape[:2]) < SMALLEST_SIDE <= SMALL_SIDE < max(space.shape)  # type: ignore[index, arg-type]


def vector_spec(space: gym.spaces.Box) -> ObsSpec:
    """What replay holds of vectors: bytes are divided by the highest that the space allows, floats stay."""
    highest = float(np.max(space.high)) if space.dtype == np.uint8 else 1.0
    return ObsSpec(space.shape, storage_dtype(space.dtype), None, highest if highest > 0 else 255.0)


def learns_from_images(space: gym.Space, pixels: bool | None, name: str) -> bool:
    """Whether the agent learns from images: what the config says, or where it leaves that open, what the space holds.

    Args:
        space: Of one observation.
        pixels: As `Config` has it.
        name: The environment's, for messages.

    Raises:
        ValueError: If the space is none that can be learned from so.
    """
    box = isinstance(space, gym.spaces.Box)
    axes = len(space.shape) if isinstance(space, gym.spaces.Box) else 0
    found = f"env {name} has observations {' '.join(str(space).split())}"
    if box and 0 in space.shape:  # type: ignore[operator]  # a Box has a shape
        raise ValueError(f"{found}: there is nothing in them to learn from")
    if pixels is False or (pixels is None and box and not is_image(space) and axes < 3):
        if not box:
            raise ValueError(
                f"{found}: --no-pixels needs a Box of numbers; gymnasium.wrappers.FlattenObservation makes one of most"
            )
        return False
    if pixels is None and axes == 2 and is_band(space):
        raise ValueError(
            f"{found}: an image, or a stack of vectors? set pixels to True for the one, to False for the other"
        )
    if is_image(space):
        return True
    if axes >= 2:
        raise ValueError(
            f"{found}: images are bytes, truth values, or floats with bounds in [0, 1]; wrap env so that they are, or "
            "set pixels to False to learn from the numbers as a vector"
        )
    if pixels is None:
        raise ValueError(
            f"{found}: neither images nor a Box of numbers; gymnasium.wrappers.FlattenObservation makes one of most, "
            "and pixels set to True learns from what render() draws"
        )
    return True


def conform_to_space(obs: Any, space: gym.spaces.Box, name: str) -> np.ndarray:
    """An observation as an array of its space's shape and dtype.

    Raises:
        ValueError: If it has another shape, or values that the dtype cannot hold.
    """
    given = np.asarray(obs)
    if given.shape != space.shape:
        raise ValueError(f"env {name} gives an observation of shape {given.shape} where its space says {space.shape}")
    if given.dtype == space.dtype:
        return given
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            cast = given.astype(space.dtype)
        fits = np.issubdtype(space.dtype, np.floating) or bool((cast == given).all())
    except (TypeError, ValueError) as error:
        raise ValueError(f"env {name} gives an observation that is no array of numbers: {error}") from error
    if not fits:
        raise ValueError(
            f"env {name} gives {given.dtype} observations whose values its space's {space.dtype} cannot hold: "
            "let the space say what the environment gives"
        )
    return cast


def check_range(image: np.ndarray, highest: float, name: str, *, resized: bool) -> None:
    """Raise if an image has values that its space does not allow: they would be clipped, or seen on another scale.

    Args:
        image: Of the dtype of its space.
        highest: Highest value that the space allows; the lowest is 0 or above.
        name: The environment's, for messages.
        resized: Whether it becomes bytes, which cannot say that a float was none; else that is found out later.
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
            f"env {name} gives an image of values from {low:g} to {high:g} where its space ends at {highest:g}"
        )
    if resized:
        raise FloatingPointError(f"an observation of env {name} is {wrong.flat[0]}")


def picture_bytes(picture: Any, name: str) -> np.ndarray:
    """What `render()` gave, as bytes `[H, W]`, `[H, W, 1]` or `[H, W, 3]`; transparent parts show black behind.

    Raises:
        ValueError: If it is no picture.
    """
    if picture is None:
        raise ValueError(f'env {name} draws nothing: render() gives None; make it with render_mode="rgb_array"')
    try:
        found = np.asarray(picture)
    except ValueError:
        found = np.asarray(None)
    if found.ndim not in (2, 3) or (found.ndim == 3 and found.shape[2] not in (1, 3, 4)) or 0 in found.shape:
        raise ValueError(f"env {name} draws no picture: render() gives {found.dtype} of shape {found.shape}")
    if found.dtype == np.bool_:
        found = found.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(found.dtype, np.floating):
        if not ((found >= 0) & (found <= 1)).all():
            raise ValueError(
                f"env {name} draws floats outside of [0, 1]: render() must give bytes, or floats in [0, 1]"
            )
        found = (found * 255 + 0.5).astype(np.uint8)
    elif found.dtype != np.uint8:
        if not np.issubdtype(found.dtype, np.integer) or found.min() < 0 or found.max() > 255:
            raise ValueError(f"env {name} draws {found.dtype} that are no bytes: render() must give values 0 to 255")
        found = found.astype(np.uint8)
    if found.shape[2:] == (4,):
        opaque = found[..., 3:].astype(np.uint16)
        found = ((found[..., :3] * opaque + 127) // 255).astype(np.uint8)
    return found
