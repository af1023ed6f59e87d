"""Functional environments by gymnasium's ids, and the ones within gymnasium's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym

from jaxdqn.envs import BALL
from jaxdqn.envs.adapters import GymnasiumEnv
from jaxdqn.envs.ball import make_ball
from jaxdqn.envs.cartpole import make_cartpole
from jaxdqn.envs.functional import FunctionalEnv
from jaxdqn.envs.pixels import PixelObservation

_KNOWN: dict[str, Callable[..., FunctionalEnv]] = {"CartPole-v1": make_cartpole, BALL: make_ball}


def make_gymnasium_ball(render_mode: str | None = None, **options: Any) -> GymnasiumEnv:
    """`gymnasium.make("jaxdqn/Ball-v0")`, with the options of `make_ball`."""
    return GymnasiumEnv(make_ball(**options), render_mode)


def functional_env(env: str, *, pixels: bool = True, frame_size: int = 64) -> FunctionalEnv:
    """The functional twin of an environment.

    Args:
        env: Gymnasium id.
        pixels: Whether it is seen as grey frames `[frame_size, frame_size]` uint8 or as a vector.
        frame_size: Side of the frames.

    Raises:
        ValueError: If there is none.
    """
    if env not in _KNOWN:
        raise ValueError(
            f"env {env!r} cannot be stepped on the device: use one of {', '.join(_KNOWN)}, an env_fn that gives a "
            "GymnasiumEnv, or --loop host"
        )
    return _KNOWN[env](pixels=pixels, frame_size=frame_size)


def functional_within(env: gym.Env) -> FunctionalEnv:
    """The functional environment that a user's gymnasium environment is made of.

    Args:
        env: What `make_env_fn` builds of an `env_fn`.

    Raises:
        ValueError: If it is no `GymnasiumEnv`; if wrappers stand around it, which the device would not step; or if
            what it gives is not what the agent is made for.
    """
    inner = env.env if isinstance(env, PixelObservation) else env
    if not isinstance(inner, GymnasiumEnv):
        found = type(inner.unwrapped).__name__
        if isinstance(inner.unwrapped, GymnasiumEnv):
            found += f" within {type(inner).__name__}"
        raise ValueError(
            f"env_fn gives {found}, which cannot be stepped on the device: let it give a GymnasiumEnv with nothing "
            "around it, or use --loop host"
        )
    within = inner.functional
    if within.observation_space.shape != env.observation_space.shape:
        raise ValueError(
            f"env has observations {within.observation_space.shape} on the device, and the agent is for "
            f"{env.observation_space.shape}: set frame_size and pixels to what it gives"
        )
    return within
