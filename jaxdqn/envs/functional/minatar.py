"""MinAtar's games on the device, as gymnax wrote them in JAX: `MinAtar/Breakout-v1` and three others.

They differ from the package `minatar` in two things: no action is repeated at random (there: with probability 0.1),
and a time limit truncates an episode, where the package has none or, in Freeway, a terminal state. Actions are those
that have an effect in the game, as in the `-v1` ids of the package.

References:
    Young and Tian, MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning
    Experiments (2019).
"""

from __future__ import annotations

from functools import lru_cache, partial
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from jaxdqn.envs.functional.adapters import from_gymnax
from jaxdqn.envs.functional.env import FunctionalEnv, State, time_limit

TIME_LIMITS = MappingProxyType({"Asterix": 1_000, "Breakout": 1_000, "Freeway": 2_500, "SpaceInvaders": 1_000})
"""Steps of an episode, as in gymnax."""

CELL = 16  # pixels of a picture for people
COLOURS = np.array(
    [(86, 180, 233), (230, 159, 0), (120, 120, 120), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167)],
    np.uint8,
)
"""A colour for each channel (Okabe and Ito, 2008); where several are set, the first one shows."""


@lru_cache  # the same functions for the same game, so that they are compiled once
def make_minatar(game: str) -> FunctionalEnv:
    """Return a game. Observations are grids `[10, 10, channels]` float32 of zeros and ones.

    Args:
        game: One of `TIME_LIMITS`.

    Raises:
        ValueError: If gymnax is not installed, or older than 1.0: its SpaceInvaders differs from MinAtar's there.
    """
    needed = f"env MinAtar/{game}-v1 needs gymnax 1.0.1 or later: python3 -m pip install 'gymnax>=1.0.1'"
    try:
        import gymnax
    except ModuleNotFoundError as error:
        raise ValueError(needed) from error
    env, params = gymnax.make(f"{game}-MinAtar")
    if not hasattr(env, "is_truncated"):
        raise ValueError(needed)
    # Without a limit of its own, so that `time_limit` says when an episode is truncated.
    endless = from_gymnax(env, params.replace(max_steps_in_episode=np.iinfo(np.int32).max))
    observe = env.get_obs

    def draw(state: State) -> UInt8[Array, "H W 3"]:
        return _picture(observe(state))

    return time_limit(endless._replace(observe=observe, draw=draw), TIME_LIMITS[game])


def _picture(grid: Array) -> UInt8[Array, "H W 3"]:
    channels = grid != 0
    colours = jnp.asarray(COLOURS)[jnp.argmax(channels, axis=-1)]
    picture = jnp.where(channels.any(axis=-1, keepdims=True), colours, jnp.uint8(0))
    return picture.repeat(CELL, axis=0).repeat(CELL, axis=1)


def _make(game: str, *, pixels: bool = True, frame_size: int = 64) -> FunctionalEnv:
    del pixels, frame_size  # a grid is the same with or without pixels, for every frame size
    return make_minatar(game)


asterix, breakout, freeway, space_invaders = (partial(_make, game) for game in TIME_LIMITS)
