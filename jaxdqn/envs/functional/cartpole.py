"""CartPole-v1 in JAX: gymnasium's physics in float32, its time limit and its picture.

References:
    Barto, Sutton and Anderson, Neuronlike adaptive elements that can solve difficult learning control problems (1983);
    Florian, Correct equations for the dynamics of the cart-pole system (2007);
    Gymnasium, `gymnasium/envs/classic_control/cartpole.py`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxdqn.envs.functional.cartpole_rendering import cartpole_frame, cartpole_picture
from jaxdqn.envs.functional.env import FunctionalEnv, time_limit

GRAVITY, CART_MASS, POLE_MASS, HALF_LENGTH = 9.8, 1.0, 0.1, 0.5  # m/s^2, kg, kg, m
FORCE, TIME_STEP = 10.0, 0.02  # N, s
TOTAL_MASS = CART_MASS + POLE_MASS
MAX_X, MAX_THETA = 2.4, 12 * 2 * math.pi / 360  # m, radians: an episode terminates beyond these limits
MAX_STEPS = 500


class CartPoleState(NamedTuple):
    """State of cart and pole, float32 each.

    Attributes:
        x: Position of the cart, m.
        x_dot: Velocity of the cart, m/s.
        theta: Angle of the pole from upright, radians, positive to the right.
        theta_dot: Angular velocity of the pole, radians/s.
    """

    x: Float[Array, ""]
    x_dot: Float[Array, ""]
    theta: Float[Array, ""]
    theta_dot: Float[Array, ""]


def cartpole_step(state: CartPoleState, action: Int[Array, ""]) -> tuple[CartPoleState, Bool[Array, ""]]:
    """Take one Euler step of 20 ms.

    Args:
        state: Current state.
        action: 0 pushes to the left, 1 to the right.

    Returns:
        The next state, and whether the pole has fallen or the cart has left the track.
    """
    x, x_dot, theta, theta_dot = state
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    force = jnp.where(action == 1, FORCE, -FORCE)
    push = (force + POLE_MASS * HALF_LENGTH * jnp.square(theta_dot) * sin) / TOTAL_MASS
    theta_acc = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4 / 3 - POLE_MASS * jnp.square(cos) / TOTAL_MASS))
    x_acc = push - POLE_MASS * HALF_LENGTH * theta_acc * cos / TOTAL_MASS
    state = CartPoleState(
        x=x + TIME_STEP * x_dot,
        x_dot=x_dot + TIME_STEP * x_acc,
        theta=theta + TIME_STEP * theta_dot,
        theta_dot=theta_dot + TIME_STEP * theta_acc,
    )
    return state, (jnp.abs(state.x) > MAX_X) | (jnp.abs(state.theta) > MAX_THETA)


@lru_cache  # the same functions for the same arguments, so that they are compiled once
def make_cartpole(*, pixels: bool = True, frame_size: int = 64, max_steps: int = MAX_STEPS) -> FunctionalEnv:
    """Return CartPole-v1 as a functional environment. The reward is 1 per step, also for the last one.

    Args:
        pixels: Whether observations are grey frames `[frame_size, frame_size]` uint8 or the state `[4]` float32.
        frame_size: Side of the frames.
        max_steps: Steps after which an episode is truncated.
    """

    def observe(state: CartPoleState) -> Array:
        return cartpole_frame(state.x, state.theta, frame_size) if pixels else jnp.stack(state)

    def reset(key: Key[Array, ""]) -> tuple[CartPoleState, Array]:
        state = CartPoleState(*jax.random.uniform(key, (4,), jnp.float32, -0.05, 0.05))
        return state, observe(state)

    def step(
        _: Key[Array, ""], state: CartPoleState, action: Int[Array, ""]
    ) -> tuple[CartPoleState, Array, Array, Array, Array]:
        state, terminated = cartpole_step(state, action)
        return state, observe(state), jnp.float32(1), terminated, jnp.bool_(False)

    high = np.array([2 * MAX_X, np.inf, 2 * MAX_THETA, np.inf], np.float32)
    frames = gym.spaces.Box(0, 255, (frame_size, frame_size), np.uint8)
    return time_limit(
        FunctionalEnv(
            reset=reset,
            step=step,
            observation_space=frames if pixels else gym.spaces.Box(-high, high, dtype=np.float32),
            action_space=gym.spaces.Discrete(2),
            observe=observe,
            draw=lambda state: cartpole_picture(state.x, state.theta),
        ),
        max_steps,
    )
