"""Epsilon-greedy exploration, and schedules of epsilon."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


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
    epsilon = linear_schedule(frame, start, end, duration_frames)
    return jnp.where(frame < warmup_frames, 1.0, epsilon).astype(jnp.float32)


def linear_schedule(frame: Int[Array, ""], start: float, end: float, duration_frames: int) -> Float[Array, ""]:
    """Return a value that moves from `start` at frame 0 to `end` at frame `duration_frames`, and stays there."""
    return (start + (end - start) * jnp.clip(frame / duration_frames, 0.0, 1.0)).astype(jnp.float32)


def exponential_epsilon(
    frame: Int[Array, ""], start: float, end: float, duration_frames: int, warmup_frames: int = 0
) -> Float[Array, ""]:
    """Return the probability of a random action at a frame: it falls by the same factor in each frame.

        epsilon(frame) = start * (end / start) ** min(frame / duration_frames, 1)

    and 1 during the warm-up; the arguments are those of `linear_epsilon`, with `start` and `end` above 0.
    """
    progress = jnp.clip(frame / duration_frames, 0.0, 1.0)
    return jnp.where(frame < warmup_frames, 1.0, start * (end / start) ** progress).astype(jnp.float32)


def constant_epsilon(frame: Int[Array, ""], value: float, warmup_frames: int = 0) -> Float[Array, ""]:
    """Return the same probability of a random action at every frame after the warm-up, during which it is 1."""
    return jnp.where(frame < warmup_frames, 1.0, value).astype(jnp.float32)


def epsilon_greedy(
    key: Key[Array, ""],
    q_values: Float[Array, "N A"],
    epsilon: Float[Array, ""],
    mask: Bool[Array, "N A"] | None = None,
) -> Int[Array, " N"]:
    """Choose, for each of `N` environments, a uniformly random action with probability epsilon, otherwise the best.

    The random action is uniform over *all* actions, the greedy one included, so a greedy action is taken with
    probability `1 - epsilon + epsilon / A`. The key is consumed.

    Args:
        key: Random key.
        q_values: Action values.
        epsilon: Probability of a random action.
        mask: Actions that are allowed in each environment; see `allowed_values`.

    References:
        Sutton and Barto, Reinforcement Learning (2018), section 2.2.
    """
    explore_key, action_key = jax.random.split(key)
    num_envs, num_actions = q_values.shape
    explore = jax.random.uniform(explore_key, (num_envs,)) < epsilon
    random = random_actions(action_key, num_envs, num_actions, mask)
    greedy = jnp.argmax(allowed_values(q_values, mask), axis=-1)
    return jnp.where(explore, random, greedy).astype(jnp.int32)


def random_actions(
    key: Key[Array, ""], num_envs: int, num_actions: int, mask: Bool[Array, "N A"] | None = None
) -> Int[Array, " N"]:
    """Choose uniformly among the actions that each environment allows; the key is consumed."""
    if mask is None:
        return jax.random.randint(key, (num_envs,), 0, num_actions)
    return jax.random.categorical(key, allowed_values(jnp.zeros((num_envs, num_actions)), mask))


def allowed_values(q_values: Float[Array, "*B A"], mask: Bool[Array, "*B A"] | None) -> Float[Array, "*B A"]:
    """Return the values, with minus infinity for actions that a mask does not allow.

    A mask that allows no action allows all: environments give such a mask at the end of an episode, where no action is
    taken. None allows all, too.
    """
    if mask is None:
        return q_values
    return jnp.where(mask | ~mask.any(axis=-1, keepdims=True), q_values, -jnp.inf)
