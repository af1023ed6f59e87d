"""Wrappers that give observations in the format of replay."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FrameStackObservation, NormalizeObservation, NormalizeReward

from jaxdqn.envs.gymnasium.making import describe_error
from jaxdqn.envs.gymnasium.spaces import (
    check_range,
    conform_to_space,
    image_rule_of,
    is_image,
    learns_from_images,
    picture_bytes,
    vector_spec,
)
from jaxdqn.observations import ImageRule, ObsSpec, apply_rule

EnvFn = Callable[[], gym.Env]

# Set before pygame is imported. A machine without a screen draws into memory; a machine with one is not changed.
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # gymnasium before 1.4 starts sound, too
# Otherwise SDL turns SIGTERM into an event that nobody reads, and `kill` does not end a run.
os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")


class _Observation(gym.ObservationWrapper):
    def close(self) -> None:
        """Close the environment; only warn if that fails, since it is no reason to end a run."""
        try:
            super().close()
        except Exception as error:
            fault = f"env {name_of(self.env)} raised an error when it was closed: {describe_error(error)}"
            warnings.warn(fault, RuntimeWarning, stacklevel=2)


class VectorObservation(_Observation):
    """Vector observations, checked against the shape and the dtype of their space."""

    def observation(self, observation: Any) -> np.ndarray:
        """Return the observation of a step in the dtype of its space.

        Raises:
            ValueError: If it has another shape, or values that the dtype cannot hold.
        """
        space: Any = self.env.observation_space
        return conform_to_space(observation, space, name_of(self.env))

    def obs_spec(self, frame_stack: int | None = None) -> ObsSpec:
        """Return what replay holds; vectors are not stacked."""
        del frame_stack
        space: Any = self.env.observation_space
        return vector_spec(space)


class PixelObservation(_Observation):
    """Images as replay holds them, from image observations or, if there are none, from `render()`.

    Images with sides of at most 32, or with other than 1 or 3 channels, are taken as they are, with channels last.
    Others are made grey, unless `colour`, and resized.

    Attributes:
        observation_space: Space of one image: `Box(0, 255, (size, size), uint8)` if it is made grey and resized.
    """

    def __init__(self, env: gym.Env, size: int = 64, *, colour: bool = False) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            size: Side to which images are resized.
            colour: Whether images that are resized keep their colours.

        Raises:
            ValueError: If its observations are not images and it does not render to `rgb_array`, or if they are images
                that are not supported.
        """
        super().__init__(env)
        space: Any = env.observation_space
        learns_from_images(space, True, name_of(env))
        self._renders = not is_image(space)
        if self._renders and env.render_mode != "rgb_array":
            raise ValueError(
                f"env {name_of(env)} gives no images and has render_mode {env.render_mode!r}: "
                'make it with render_mode="rgb_array", or set pixels to False'
            )
        if self._renders:
            self._rule = ImageRule(False, True, colour, (size, size), 255.0, 4)
            spec = self._rule.spec((1, 1, 3), np.uint8)
        else:
            stacked = len(space.shape) == 3 and is_stacked(env)
            self._rule = image_rule_of(space, size, colour=colour, stacked=stacked)
            spec = self._rule.spec(space.shape, space.dtype)
        self._spec = spec
        highest = spec.scale if spec.dtype == np.uint8 else 1.0
        self.observation_space = gym.spaces.Box(0, spec.dtype.type(highest), spec.shape, spec.dtype)  # type: ignore[arg-type, union-attr]

    def observation(self, observation: Any) -> np.ndarray:
        """Return the image of a step.

        Raises:
            FloatingPointError: If an image that is resized has NaN or infinity.
            ValueError: If the space does not allow the image, or the environment draws no picture.
        """
        name = name_of(self.env)
        if self._renders:
            image = apply_rule(self._rule, picture_bytes(self.env.render(), name))
            if image.shape != self._spec.shape:
                raise ValueError(f"env {name} draws a grey picture: set colour to False")
            return image
        space: Any = self.env.observation_space
        found = conform_to_space(observation, space, name)
        check_range(found, self._rule.highest, name, resized=self._rule.resized)
        return apply_rule(self._rule, found)

    def obs_spec(self, frame_stack: int | None = None) -> ObsSpec:
        """Return what replay holds.

        Args:
            frame_stack: Images per stack; None: 4 if images are resized, else 1.
        """
        return self._spec if frame_stack is None else self._spec._replace(stack=frame_stack)


def _wrappers(env: gym.Env) -> Iterator[gym.Env]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env


def is_stacked(env: gym.Env) -> bool:
    """Return whether one of gymnasium's wrappers stacks the observations."""
    return any(isinstance(wrapper, FrameStackObservation) for wrapper in _wrappers(env))


def running_statistics(env: gym.Env) -> str | None:
    """Return the name of a wrapper that normalises by running statistics, which copies do not share; None if none."""
    kinds = (NormalizeObservation, NormalizeReward)
    return next((type(wrapper).__name__ for wrapper in _wrappers(env) if isinstance(wrapper, kinds)), None)


def name_of(env: gym.Env) -> str:
    """Return the id of an environment, or its class if it was not made by id."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
