"""Build one environment, by id or by the user's function, check it, and wrap it for replay."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym

from jaxdqn.config import Config
from jaxdqn.config_fields import is_atari, plain_id
from jaxdqn.envs.atari import AtariEnvFn
from jaxdqn.envs.gymnasium.making import make_by_id
from jaxdqn.envs.gymnasium.spaces import is_image, learns_from_images
from jaxdqn.envs.gymnasium.wrappers import EnvFn, PixelObservation, VectorObservation, is_stacked, name_of
from jaxdqn.envs.registry import is_made_of_functional
from jaxdqn.observations import ObsSpec


def make_env_fn(
    env: str,
    *,
    pixels: bool | None = True,
    frame_size: int = 64,
    colour: bool = False,
    env_fn: EnvFn | None = None,
    render: bool = False,
    **options: Any,
) -> EnvFn:
    """Return a function that builds one environment and checks it.

    Args:
        env: Gymnasium id.
        pixels: Whether the agent learns from images; None: from images if the environment gives images.
        frame_size: Side to which images are resized.
        colour: Whether images that are resized keep their colours.
        env_fn: Builds the user's own environment, in place of the id; called once for each copy.
        render: Whether an environment made by id must be able to render itself even if the agent learns from vectors.
        options: Options of an Atari game. See `jaxdqn.envs.atari`.

    Raises:
        ValueError: If options are given, and the environment is not an Atari game made by id.

    Returns:
        A function that raises `ValueError` if the id is unknown, actions are not discrete, or observations are not what
        `pixels` asks for. `make_vector_env` steps the copies of an Atari game on ale-py's threads.
    """
    env = plain_id(env)
    games = is_atari(env) and env_fn is None
    if games:
        options = {**options, "frame_size": frame_size, "colour": colour}
    elif options:
        raise ValueError(f"{next(iter(options))} needs an Atari game, such as ALE/Pong-v5, and no env_fn: leave it out")
    # A partial can be sent to a worker process.
    build = partial(_build, env, pixels, frame_size, colour, env_fn, render, options)
    return AtariEnvFn(build, env, options) if games else build


def make_env_fn_of(
    config: Config, env: str | None = None, *, env_fn: EnvFn | None = None, render: bool = False
) -> EnvFn:
    """Return `make_env_fn` with the fields of a config.

    Args:
        config: The config.
        env: Gymnasium id; None: the config's.
        env_fn: Builds the user's own environment.
        render: Whether the environment must be able to draw itself.
    """
    env = config.env if env is None else env
    return make_env_fn(
        env,
        pixels=config.pixels,
        frame_size=config.frame_size,
        colour=config.colour,
        env_fn=env_fn,
        render=render,
        **(config.env_options if is_atari(env) and env_fn is None else {}),
    )


def _build(
    env: str,
    pixels: bool | None,
    frame_size: int,
    colour: bool,
    env_fn: EnvFn | None,
    render: bool,
    options: dict[str, Any],
) -> gym.Env:
    built = _build_by_id(env, pixels, frame_size, render, options) if env_fn is None else env_fn()
    if not isinstance(built, gym.Env):
        raise ValueError(f"env_fn returned {built!r}, which is not a gymnasium.Env: return a new one at each call")
    try:
        return _check_and_wrap(built, pixels, frame_size, colour)
    except ValueError:
        built.close()
        raise


def _build_by_id(env: str, pixels: bool | None, frame_size: int, render: bool, options: dict[str, Any]) -> gym.Env:
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
