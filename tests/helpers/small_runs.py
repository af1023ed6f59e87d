"""Configs of the smallest runs, and comparisons of two states."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxdqn.config import Config

CONFIG = Config(
    pixels=False,
    loop="device",
    total_frames=60,
    num_envs=2,
    frames_per_batch=10,
    batch_size=4,
    updates_per_batch=2,
    capacity=60,
    warmup_frames=20,
    n_steps=1,
    evaluate_every=40,
    reward_scale=0.1,
)
HOST = dataclasses.replace(CONFIG, loop="host", evaluate_every=0, evaluation_episodes=1)
PIXELS = dataclasses.replace(
    CONFIG,
    pixels=True,
    frame_size=44,
    frame_stack=2,
    total_frames=100,
    batch_size=8,
    updates_per_batch=5,
    random_shift=1,
    mirror=True,
    normalisation_frames=16,
    evaluate_every=0,
    greedy_params="average",
)

VECTORS = Config(
    pixels=False,
    total_frames=640,
    num_envs=8,
    frames_per_batch=16,
    batch_size=16,
    updates_per_batch=4,
    capacity=256,
    warmup_frames=64,
    n_steps=3,
    evaluate_every=0,
    evaluation_episodes=1,
    checkpoint_every=320,
    greedy_params="average",
)
"""A run of vectors that four devices can share."""


def equal(tree, other):
    """Return whether all arrays of two trees are equal."""

    def leaf(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(leaf(a), leaf(b)) for a, b in pairs)


def max_difference(tree, other):
    """Return the largest absolute difference between the arrays of two trees."""
    return max(float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (tree, other)), strict=True))
