"""Epsilon-greedy exploration on a linear schedule."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def linear_epsilon(
    frame: Int[Array, ""], start: float, end: float, duration_frames: int, warmup_frames: int = 0
) -> Float[Array, ""]:
    """Return the probability of a random action at a frame.

        epsilon(frame) = start + (end - start) * min(frame / duration_frames, 1)

    and 1 during the first `warmup_frames`, which are uniformly random.

    Args:
        frame: Frames collected so far.
        start: Epsilon at frame 0.
        end: Epsilon from `duration_frames` on.
        duration_frames: Frames over which epsilon moves from start to end, at least 1.
        warmup_frames: Frames of random actions before learning starts.
    """
    progress = jnp.clip(frame / duration_frames, 0.0, 1.0)
    epsilon = start + (end - start) * progress
    return jnp.where(frame < warmup_frames, 1.0, epsilon).astype(jnp.float32)


def epsilon_greedy(key: Key[Array, ""], q_values: Float[Array, "N A"], epsilon: Float[Array, ""]) -> Int[Array, " N"]:
    """Choose, for each of `N` environments, a uniformly random action with probability epsilon, otherwise the best.

    The random action is uniform over *all* actions, the greedy one included, so a greedy action is taken with
    probability `1 - epsilon + epsilon / A`. The key is consumed.

    References:
        Sutton and Barto, Reinforcement Learning (2018), section 2.2.
    """
    explore_key, action_key = jax.random.split(key)
    num_envs, num_actions = q_values.shape
    explore = jax.random.uniform(explore_key, (num_envs,)) < epsilon
    random_actions = jax.random.randint(action_key, (num_envs,), 0, num_actions)
    return jnp.where(explore, random_actions, jnp.argmax(q_values, axis=-1)).astype(jnp.int32)
