"""A ball that falls diagonally, and a paddle too slow to follow it: only a policy that sees motion catches the ball.

The ball starts at the top, falls 1.5 pixels per step, drifts sideways by 2 to 3.5 pixels per step, and bounces off both
walls. The paddle moves 1.3 pixels per step. If it stays below the ball it arrives too late, so the policy must predict
from a few frames where the ball will land. A caught ball gives reward 1, a missed ball 0. An episode has 20 balls, and
is truncated after them. A random policy catches 4 of 20, a paddle that follows the ball no more than that, and a policy
that knows where the ball will land catches all.
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

FALL_SPEED, PADDLE_SPEED = 1.5, 1.3  # pixels per step: of the ball downwards, and of the paddle
MIN_DRIFT, MAX_DRIFT = 2.0, 3.5  # pixels per step of the ball sideways
SIDE = 64  # side of the field in pixels, for every frame size
RADIUS, HALF_PADDLE = 2.0, 4.0  # of the ball; half the paddle's width
FLOOR, THICKNESS = SIDE - 4.0, 2.0  # row of the paddle's upper edge, and the paddle's height
BALLS = 20  # per episode
STEPS_PER_BALL = 40  # from the top to the floor


class BallState(NamedTuple):
    """Positions of ball and paddle, in pixels from the left and from the top, float32 each.

    Attributes:
        x: Centre of the ball, from the left.
        y: Centre of the ball, from the top.
        drift: Pixels per step that the ball moves to the right.
        paddle: Centre of the paddle, from the left.
    """

    x: Float[Array, ""]
    y: Float[Array, ""]
    drift: Float[Array, ""]
    paddle: Float[Array, ""]


@lru_cache  # the same functions for the same arguments, so that they are compiled once
def make_ball(*, pixels: bool = True, frame_size: int = 64) -> FunctionalEnv:
    """Return the environment. Actions: 0 left, 1 stay, 2 right.

    Args:
        pixels: Whether observations are grey frames `[frame_size, frame_size]` uint8 or the `BallState` `[4]` float32.
        frame_size: Side of the frames.
    """

    def observe(state: BallState) -> Array:
        return ball_frame(state, frame_size) if pixels else jnp.stack(state)

    def new_ball(key: Key[Array, ""], paddle: Float[Array, ""]) -> BallState:
        x_key, drift_key, side_key = jax.random.split(key, 3)
        x = jax.random.uniform(x_key, (), jnp.float32, RADIUS, SIDE - RADIUS)
        drift = jax.random.uniform(drift_key, (), jnp.float32, MIN_DRIFT, MAX_DRIFT)
        drift *= jnp.where(jax.random.bernoulli(side_key), 1, -1)
        return BallState(x, jnp.float32(FLOOR - STEPS_PER_BALL * FALL_SPEED), drift, paddle)

    def reset(key: Key[Array, ""]) -> tuple[BallState, Array]:
        state = new_ball(key, jnp.float32(SIDE / 2))
        return state, observe(state)

    def step(
        key: Key[Array, ""], state: BallState, action: Int[Array, ""]
    ) -> tuple[BallState, Array, Array, Array, Array]:
        paddle = state.paddle + PADDLE_SPEED * (action.astype(jnp.float32) - 1)
        paddle = jnp.clip(paddle, HALF_PADDLE, SIDE - HALF_PADDLE)
        x, drift = bounce(state.x + state.drift, state.drift)
        moved = BallState(x, state.y + FALL_SPEED, drift, paddle)
        landed = moved.y >= FLOOR
        caught = landed & (jnp.abs(moved.x - paddle) <= HALF_PADDLE + RADIUS)
        state = jax.tree.map(lambda new, old: jnp.where(landed, new, old), new_ball(key, paddle), moved)
        return state, observe(state), caught.astype(jnp.float32), jnp.bool_(False), jnp.bool_(False)

    frames = gym.spaces.Box(0, 255, (frame_size, frame_size), np.uint8)
    low, high = np.array([0, 0, -MAX_DRIFT, 0], np.float32), np.array([SIDE, SIDE, MAX_DRIFT, SIDE], np.float32)
    env = FunctionalEnv(
        reset=reset,
        step=step,
        observation_space=frames if pixels else gym.spaces.Box(low, high, dtype=np.float32),
        action_space=gym.spaces.Discrete(3),
        observe=observe,
        draw=lambda state: jnp.repeat(ball_frame(state, 256)[..., None], 3, axis=-1),
    )
    return time_limit(env, BALLS * STEPS_PER_BALL)


def bounce(x: Float[Array, ""], drift: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return position and drift of the ball after a step that may have moved it beyond a wall."""
    low, high = RADIUS, SIDE - RADIUS
    inside = jnp.where(x < low, 2 * low - x, jnp.where(x > high, 2 * high - x, x))
    return inside, jnp.where(inside == x, drift, -drift)


def ball_frame(state: BallState, size: int) -> Array:
    """Draw a white disc and a grey bar on black `[size, size]` uint8; soft edges show motion of half a pixel."""
    scale = size / SIDE
    pixel = (jnp.arange(size) + 0.5) / scale
    distance = jnp.sqrt(jnp.square(pixel[:, None] - state.y) + jnp.square(pixel - state.x))
    disc = jnp.clip((RADIUS - distance) * scale + 0.5, 0, 1)
    across = jnp.clip((HALF_PADDLE - jnp.abs(pixel - state.paddle)) * scale + 0.5, 0, 1)
    down = jnp.clip(
        (THICKNESS / 2 - jnp.abs(pixel - FLOOR - THICKNESS / 2)) * scale + 0.5, 0, min(1, THICKNESS * scale)
    )
    return (255 * jnp.maximum(disc, 0.6 * down[:, None] * across) + 0.5).astype(jnp.uint8)
