"""One environment as the agent wants it: discrete actions, and observations as replay holds them."""

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

from jaxdqn.envs.gymnasium.making import in_words, make_by_id
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

# Before pygame is imported. A machine without a screen draws into memory; where there is one, it is left alone.
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
# SDL would otherwise turn SIGTERM into an event that nobody reads, and `kill` would not end a run.
os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")


class _Observation(gym.ObservationWrapper):
    def close(self) -> None:
        """Close the environment; warn if that fails, since it is no reason to end a run."""
        try:
            super().close()
        except Exception as error:
            warnings.warn(f"env {name_of(self.env)} raised at its end: {in_words(error)}", RuntimeWarning, stacklevel=2)


class VectorObservation(_Observation):
    """Observations of the shape and the dtype that their space says; others are refused."""

    def observation(self, observation: Any) -> np.ndarray:
        """The observation of a step."""
        space: Any = self.env.observation_space
        return conform_to_space(observation, space, name_of(self.env))

    def obs_spec(self, frame_stack: int | None = None) -> ObsSpec:
        """What replay holds: vectors are not stacked."""
        del frame_stack
        space: Any = self.env.observation_space
        return vector_spec(space)


class PixelObservation(_Observation):
    """Images as replay holds them, from image observations or, where there are none, from `render()`.

    Images with sides of at most 32, or with other than 1 or 3 channels, are taken as they are, with their channels
    last; others are made grey, unless `colour`, and resized.

    Attributes:
        observation_space: Of one image: `Box(0, 255, (size, size), uint8)` where it is made grey and resized.
    """

    def __init__(self, env: gym.Env, size: int = 64, *, colour: bool = False) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            size: Side to which images are resized.
            colour: Whether images that are resized keep their colours.

        Raises:
            ValueError: If its observations are no images and it does not render to `rgb_array`, or are images of
                another kind than can be learned from.
        """
        super().__init__(env)
        space: Any = env.observation_space
        learns_from_images(space, True, name_of(env))
        self._draws = not is_image(space)
        if self._draws and env.render_mode != "rgb_array":
            raise ValueError(
                f"env {name_of(env)} gives no image and has render_mode {env.render_mode!r}: "
                'make it with render_mode="rgb_array", or set pixels to False'
            )
        if self._draws:
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
        """The image of a step."""
        name = name_of(self.env)
        if self._draws:
            image = apply_rule(self._rule, picture_bytes(self.env.render(), name))
            if image.shape != self._spec.shape:
                raise ValueError(f"env {name} draws a picture without colours: set colour to False")
            return image
        space: Any = self.env.observation_space
        found = conform_to_space(observation, space, name)
        check_range(found, self._rule.highest, name, resized=self._rule.resized)
        return apply_rule(self._rule, found)

    def obs_spec(self, frame_stack: int | None = None) -> ObsSpec:
        """What replay holds.

        Args:
            frame_stack: Images to a stack; None: 4 of those that are resized, 1 of others.
        """
        return self._spec if frame_stack is None else self._spec._replace(stack=frame_stack)


def _wrappers(env: gym.Env) -> Iterator[gym.Env]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env


def is_stacked(env: gym.Env) -> bool:
    """Whether a wrapper of gymnasium's stacks what the environment gives."""
    return any(isinstance(wrapper, FrameStackObservation) for wrapper in _wrappers(env))


def running_statistics(env: gym.Env) -> str | None:
    """The name of a wrapper that normalises by what it has seen, which another copy has not; None for none."""
    kinds = (NormalizeObservation, NormalizeReward)
    return next((type(wrapper).__name__ for wrapper in _wrappers(env) if isinstance(wrapper, kinds)), None)


def name_of(env: gym.Env) -> str:
    """The environment's id, or its class where it was not made by one."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def spec_of_env(env: gym.Env, frame_stack: int | None = None) -> ObsSpec:
    """What is observed of an environment that `make_env_fn` builds.

    Args:
        env: The environment.
        frame_stack: Images to a stack; None: 4 of those that are resized, 1 of others.
    """
    if not isinstance(env, PixelObservation | VectorObservation):
        raise ValueError(f"env {name_of(env)} was not built by make_env_fn, which checks it: build it with that")
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
    """A function that builds one environment, checked.

    Args:
        env: Gymnasium id.
        pixels: Whether the agent learns from images; None: from images where the environment gives some.
        frame_size: Side to which images are resized.
        colour: Whether images that are resized keep their colours.
        env_fn: The user's own environment in place of the id; called once for each copy.
        render: Whether an environment made by its id must draw itself even where the agent learns from vectors.

    Returns:
        A function that raises `ValueError` where the id is unknown, actions are not discrete, or observations are
        not what `pixels` asks for.
    """
    return partial(_build, env, pixels, frame_size, colour, env_fn, render)  # which a process of its own can be sent


def _build(env: str, pixels: bool | None, frame_size: int, colour: bool, env_fn: EnvFn | None, render: bool) -> gym.Env:
    made = _by_id(env, pixels, frame_size, render) if env_fn is None else env_fn()
    if not isinstance(made, gym.Env):
        raise ValueError(f"env_fn gave {made!r}, which is no gymnasium.Env: let it build a new one at each call")
    try:
        return _checked(made, pixels, frame_size, colour)
    except ValueError:
        made.close()
        raise


def _by_id(env: str, pixels: bool | None, frame_size: int, render: bool) -> gym.Env:
    options: dict[str, Any] = {}
    if is_made_of_functional(env):  # these need no picture resized: they give what is asked for
        options = {"frame_size": frame_size} if pixels is None else {"frame_size": frame_size, "pixels": pixels}
    made = make_by_id(env, render=render, **options)
    if render or not pixels or is_image(made.observation_space):
        return made
    made.close()  # it gives no image, and has to draw one
    return make_by_id(env, render=True, **options)


def _checked(env: gym.Env, pixels: bool | None, frame_size: int, colour: bool) -> gym.Env:
    space = env.action_space
    if not isinstance(space, gym.spaces.Discrete):
        raise ValueError(f"env {name_of(env)} has actions {space}: DQN needs discrete actions")
    if space.start != 0:
        raise ValueError(f"env {name_of(env)} counts actions from {space.start}: wrap it so that they start at 0")
    if pixels is None and is_stacked(env) and len(env.observation_space.shape or ()) == 2:
        pixels = False  # vectors, of which it has made a table
    if learns_from_images(env.observation_space, pixels, name_of(env)):
        return PixelObservation(env, frame_size, colour=colour)
    if colour:
        raise ValueError(f"colour True needs images, and env {name_of(env)} gives vectors: set it to False")
    return VectorObservation(env)
