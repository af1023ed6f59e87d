"""One environment as the agent wants it: discrete actions, and grey frames where it learns from pixels."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from jaxdqn.envs import BALL
from jaxdqn.preprocessing import preprocess_frame

EnvFn = Callable[[], gym.Env]

# Before pygame is imported. A machine without a screen draws into memory; where there is one, it is left alone.
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
# SDL would otherwise turn SIGTERM into an event that nobody reads, and `kill` would not end a run.
os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")


class PixelObservation(gym.ObservationWrapper):
    """Grey frames `[size, size]` uint8, from image observations or else from `render()`.

    Attributes:
        observation_space: `Box(0, 255, (size, size), uint8)`.
    """

    def __init__(self, env: gym.Env, size: int = 64) -> None:
        """Wrap an environment.

        Raises:
            ValueError: If its observations are no images and it does not render to `rgb_array`.
        """
        super().__init__(env)
        self._size = (size, size)
        self._draws = not is_image(env.observation_space)
        if self._draws and env.render_mode != "rgb_array":
            raise ValueError(
                f"env {name_of(env)} gives no image and has render_mode {env.render_mode!r}: "
                'make it with render_mode="rgb_array", or set pixels to False'
            )
        self.observation_space = gym.spaces.Box(0, 255, self._size, np.uint8)

    def observation(self, observation: Any) -> np.ndarray:
        """The frame of a step."""
        frame = self.env.render() if self._draws else observation
        return preprocess_frame(np.asarray(frame), self._size)


def is_image(space: gym.Space) -> bool:
    """Whether a space holds RGB or grey images, bytes with channels last."""
    if not isinstance(space, gym.spaces.Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[-1] in (1, 3))


def name_of(env: gym.Env) -> str:
    """The environment's id, or its class where it was not made by one."""
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def make_env_fn(
    env: str, *, pixels: bool = True, frame_size: int = 64, env_fn: EnvFn | None = None, render: bool = False
) -> EnvFn:
    """A function that builds one environment, checked.

    Args:
        env: Gymnasium id.
        pixels: Whether the agent learns from frames.
        frame_size: Side to which frames are resized.
        env_fn: The user's own environment in place of the id; called once for each copy.
        render: Whether an environment made by its id must draw itself even where the agent learns from vectors.

    Returns:
        A function that raises `ValueError` where the id is unknown, actions are not discrete, or observations are
        not what `pixels` asks for.
    """
    return partial(_build, env, pixels, frame_size, env_fn, render)  # which a process of its own can be sent


def _build(env: str, pixels: bool, frame_size: int, env_fn: EnvFn | None, render: bool) -> gym.Env:
    # Ours need no picture resized: they give what is asked for.
    ours = {"pixels": pixels, "frame_size": frame_size} if env == BALL else {}
    made = env_fn() if env_fn is not None else make_by_id(env, render=pixels or render, **ours)
    try:
        return _checked(made, pixels, frame_size)
    except ValueError:
        made.close()
        raise


def make_by_id(env: str, *, render: bool, **options: Any) -> gym.Env:
    """`gymnasium.make` with an environment's own options; its many errors become one `ValueError` of one line.

    Raises:
        ValueError: If the id is unknown, malformed, or needs what is not installed.
    """
    try:
        return gym.make(env, render_mode="rgb_array" if render else None, disable_env_checker=True, **options)
    except (gym.error.Error, ImportError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise ValueError(f"env {env!r} cannot be made: {detail}") from error


def _checked(env: gym.Env, pixels: bool, frame_size: int) -> gym.Env:
    space = env.action_space
    if not isinstance(space, gym.spaces.Discrete):
        raise ValueError(f"env {name_of(env)} has actions {space}: DQN needs discrete actions")
    if space.start != 0:
        raise ValueError(f"env {name_of(env)} counts actions from {space.start}: wrap it so that they start at 0")
    if pixels:
        return PixelObservation(env, frame_size)
    if not isinstance(env.observation_space, gym.spaces.Box):
        raise ValueError(
            f"env {name_of(env)} has observations {env.observation_space}: --no-pixels needs a Box of numbers"
        )
    return env
