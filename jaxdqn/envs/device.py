"""Functional environments by gymnasium's ids."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym

from jaxdqn.envs.adapters import GymnasiumEnv
from jaxdqn.envs.ball import make_ball
from jaxdqn.envs.cartpole import make_cartpole
from jaxdqn.envs.functional import FunctionalEnv
from jaxdqn.envs.pixels import BALL


def make_gymnasium_ball(render_mode: str | None = None) -> GymnasiumEnv:
    """`gymnasium.make("jaxdqn/Ball-v0")`, seen as frames."""
    return GymnasiumEnv(make_ball(), render_mode)


def functional_env(env: str, *, pixels: bool = True, frame_size: int = 64) -> FunctionalEnv:
    """The functional twin of an environment.

    Args:
        env: Gymnasium id.
        pixels: Whether it is seen as grey frames `[frame_size, frame_size]` uint8 or as a vector.
        frame_size: Side of the frames.

    Raises:
        ValueError: If there is none.
    """
    known: dict[str, Callable[..., FunctionalEnv]] = {"CartPole-v1": make_cartpole, BALL: make_ball}
    if env not in known:
        raise ValueError(
            f"env {env!r} cannot be stepped on the device: use one of {', '.join(known)}, an env_fn that gives a "
            "GymnasiumEnv, or --loop host"
        )
    return known[env](pixels=pixels, frame_size=frame_size)


def functional_twin(env: gym.Env, *, pixels: bool, frame_size: int) -> FunctionalEnv:
    """The functional environment within a gymnasium environment, or its twin.

    Args:
        env: What `make_env_fn` builds.
        pixels: Whether the agent learns from frames.
        frame_size: Side of the frames.

    Raises:
        ValueError: If there is none, or its observations are not those of `env`.
    """
    inner = env.unwrapped
    if isinstance(inner, GymnasiumEnv):
        twin = inner.functional
    else:
        twin = functional_env(env.spec.id if env.spec else type(inner).__name__, pixels=pixels, frame_size=frame_size)
    if twin.observation_space.shape != env.observation_space.shape:
        raise ValueError(
            f"env has observations {twin.observation_space.shape} on the device, and the agent is for "
            f"{env.observation_space.shape}: set frame_size and pixels to what it gives"
        )
    return twin
