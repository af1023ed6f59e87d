"""Build one environment as the agent needs it: discrete actions, and observations in the format of replay."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FrameStackObservation, NormalizeObservation, NormalizeReward

from jaxdqn.envs.gymnasium.making import describe_error, make_by_id
from jaxdqn.envs.gymnasium.spaces import (
    check_range,
    conform_to_space,
    image_rule_of,
    is_image,
    learns_from_images,
    picture_bytes,
    vector_spec,
)
from jaxdqn.envs.registry import is_made_of_functional
from jaxdqn.observations import ImageRule, ObsSpec, apply_rule

EnvFn = Callable[[], gym.Env]

# Set before pygame is imported. A machine without a screen draws into memory; a machine with one is not changed.
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
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


def spec_of_env(env: gym.Env, frame_stack: int | None = None) -> ObsSpec:
    """Return the format of the observations of an environment that `make_env_fn` built.

    Args:
        env: The environment.
        frame_stack: Images per stack; None: 4 if images are resized, else 1.

    Raises:
        ValueError: If it was not built by `make_env_fn`.
    """
    if not isinstance(env, PixelObservation | VectorObservation):
        raise ValueError(f"env {name_of(env)} was not built by make_env_fn, which checks it: build it with make_env_fn")
    return env.obs_spec(frame_stack)


def make_env_fn(
    env: str,
    *,
    pixels: bool | None = True,
    frame_size: int = 64,
    colour: bool = False,
    env_fn: EnvFn | None = None,
    render: bool = False,
) -> EnvFn:
    """Return a function that builds one environment and checks it.

    Args:
        env: Gymnasium id.
        pixels: Whether the agent learns from images; None: from images if the environment gives images.
        frame_size: Side to which images are resized.
        colour: Whether images that are resized keep their colours.
        env_fn: Builds the user's own environment, in place of the id; called once for each copy.
        render: Whether an environment made by id must be able to render itself even if the agent learns from vectors.

    Returns:
        A function that raises `ValueError` if the id is unknown, actions are not discrete, or observations are not what
        `pixels` asks for.
    """
    return partial(_build, env, pixels, frame_size, colour, env_fn, render)  # a partial can be sent to a worker process


def _build(env: str, pixels: bool | None, frame_size: int, colour: bool, env_fn: EnvFn | None, render: bool) -> gym.Env:
    built = _build_by_id(env, pixels, frame_size, render) if env_fn is None else env_fn()
    if not isinstance(built, gym.Env):
        raise ValueError(f"env_fn returned {built!r}, which is not a gymnasium.Env: return a new one at each call")
    try:
        return _check_and_wrap(built, pixels, frame_size, colour)
    except ValueError:
        built.close()
        raise


def _build_by_id(env: str, pixels: bool | None, frame_size: int, render: bool) -> gym.Env:
    options: dict[str, Any] = {}
    if is_made_of_functional(env):  # these take the options and need no resizing
        options = {"frame_size": frame_size} if pixels is None else {"frame_size": frame_size, "pixels": pixels}
    built = make_by_id(env, render=render, **options)
    if render or not pixels or is_image(built.observation_space):
        return built
    built.close()  # it gives no image, so it must render one
    return make_by_id(env, render=True, **options)


def _check_and_wrap(env: gym.Env, pixels: bool | None, frame_size: int, colour: bool) -> gym.Env:
    space = env.action_space
    if not isinstance(space, gym.spaces.Discrete):
        raise ValueError(f"env {name_of(env)} has actions {space}: DQN needs discrete actions")
    if space.start != 0:
        raise ValueError(f"env {name_of(env)} has actions that start at {space.start}: wrap it so that they start at 0")
    if pixels is None and is_stacked(env) and len(env.observation_space.shape or ()) == 2:
        pixels = False  # stacked vectors
    if learns_from_images(env.observation_space, pixels, name_of(env)):
        return PixelObservation(env, frame_size, colour=colour)
    if colour:
        raise ValueError(f"colour True needs images, but env {name_of(env)} gives vectors: set colour to False")
    return VectorObservation(env)
