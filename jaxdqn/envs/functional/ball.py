"""A ball that falls at a slant, and a paddle too slow to follow it: only who sees its motion catches it.

The ball starts at the top, falls a pixel and a half a step, drifts sideways by two to three and a half, and bounces off
both walls. The paddle moves by 1.3 pixels a step: kept below the ball it comes too late, so the place where the ball
will land has to be read from a few frames. A caught ball gives 1, a missed one nothing; twenty balls are an episode,
which a time limit ends. A random policy catches 4 of 20, a paddle that follows the ball no more, and one that knows
where it will land all of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxdqn.envs.functional.env import FunctionalEnv, time_limit

FALL, SPEED = 1.5, 1.3  # pixels a step: of the ball downwards, and of the paddle
SLOWEST, DRIFT = 2.0, 3.5  # of the ball sideways
SIDE = 64  # the field, in pixels, whatever the size of the frame
RADIUS, HALF_PADDLE = 2.0, 4.0
FLOOR, THICKNESS = SIDE - 4.0, 2.0  # top of the paddle, from the top, and its height
BALLS = 20
STEPS_A_BALL = 40  # from the top to the floor


class BallState(NamedTuple):
    """Where ball and paddle are, in pixels from the left and from the top, float32 each.

    Attributes:
        x: Ball, sideways.
        y: Ball, downwards.
        drift: Pixels that it moves sideways in a step.
        paddle: Middle of the paddle, sideways.
    """

    x: Float[Array, ""]
    y: Float[Array, ""]
    drift: Float[Array, ""]
    paddle: Float[Array, ""]


@lru_cache  # the same functions for the same arguments, so that they are compiled once
def make_ball(*, pixels: bool = True, frame_size: int = 64) -> FunctionalEnv:
    """The environment: actions 0 left, 1 stay, 2 right.

    Args:
        pixels: Whether it is seen as grey frames `[frame_size, frame_size]` uint8 or as `BallState` `[4]` float32.
        frame_size: Side of the frames.
    """

    def observe(state: BallState) -> Array:
        return ball_frame(state, frame_size) if pixels else jnp.stack(state)

    def new_ball(key: Key[Array, ""], paddle: Float[Array, ""]) -> BallState:
        x_key, drift_key, side_key = jax.random.split(key, 3)
        x = jax.random.uniform(x_key, (), jnp.float32, RADIUS, SIDE - RADIUS)
        drift = jax.random.uniform(drift_key, (), jnp.float32, SLOWEST, DRIFT)
        drift *= jnp.where(jax.random.bernoulli(side_key), 1, -1)
        return BallState(x, jnp.float32(FLOOR - STEPS_A_BALL * FALL), drift, paddle)

    def reset(key: Key[Array, ""]) -> tuple[BallState, Array]:
        state = new_ball(key, jnp.float32(SIDE / 2))
        return state, observe(state)

    def step(
        key: Key[Array, ""], state: BallState, action: Int[Array, ""]
    ) -> tuple[BallState, Array, Array, Array, Array]:
        paddle = state.paddle + SPEED * (action.astype(jnp.float32) - 1)
        paddle = jnp.clip(paddle, HALF_PADDLE, SIDE - HALF_PADDLE)
        x, drift = bounced(state.x + state.drift, state.drift)
        moved = BallState(x, state.y + FALL, drift, paddle)
        landed = moved.y >= FLOOR
        caught = landed & (jnp.abs(moved.x - paddle) <= HALF_PADDLE + RADIUS)
        following = jax.tree.map(lambda new, old: jnp.where(landed, new, old), new_ball(key, paddle), moved)
        return following, observe(following), caught.astype(jnp.float32), jnp.bool_(False), jnp.bool_(False)

    frames = gym.spaces.Box(0, 255, (frame_size, frame_size), np.uint8)
    low, high = np.array([0, 0, -DRIFT, 0], np.float32), np.array([SIDE, SIDE, DRIFT, SIDE], np.float32)
    env = FunctionalEnv(
        reset=reset,
        step=step,
        observation_space=frames if pixels else gym.spaces.Box(low, high, dtype=np.float32),
        action_space=gym.spaces.Discrete(3),
        observe=observe,
        draw=lambda state: jnp.repeat(ball_frame(state, 256)[..., None], 3, axis=-1),
    )
    return time_limit(env, BALLS * STEPS_A_BALL)


def bounced(x: Float[Array, ""], drift: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Place and drift of the ball after a step that may have taken it beyond a wall."""
    low, high = RADIUS, SIDE - RADIUS
    inside = jnp.where(x < low, 2 * low - x, jnp.where(x > high, 2 * high - x, x))
    return inside, jnp.where(inside == x, drift, -drift)


def ball_frame(state: BallState, size: int) -> Array:
    """A white disc and a grey bar on black `[size, size]` uint8, with soft edges, so that half a pixel shows."""
    scale = size / SIDE
    pixel = (jnp.arange(size) + 0.5) / scale
    away = jnp.sqrt(jnp.square(pixel[:, None] - state.y) + jnp.square(pixel - state.x))
    disc = jnp.clip((RADIUS - away) * scale + 0.5, 0, 1)
    across = jnp.clip((HALF_PADDLE - jnp.abs(pixel - state.paddle)) * scale + 0.5, 0, 1)
    down = jnp.clip(
        (THICKNESS / 2 - jnp.abs(pixel - FLOOR - THICKNESS / 2)) * scale + 0.5, 0, min(1, THICKNESS * scale)
    )
    return (255 * jnp.maximum(disc, 0.6 * down[:, None] * across) + 0.5).astype(jnp.uint8)
