"""Configs by name: what `jaxdqn train PRESET` runs."""

from __future__ import annotations

import dataclasses

from jaxdqn.config import Config

# What the seed sets where our default differs, in both of its columns.
_SEED = Config(
    network="seed",
    normalisation_frames=1000,
    updates_per_batch=8,
    learning_rate=2e-3,
    learning_rate_end=2e-3,
    n_steps=5,
    double=False,
    warmup_frames=0,
    greedy_params="online",
)

PRESETS: dict[str, Config] = {
    "cartpole": Config(random_shift=2, mirror=True),  # true of CartPole; `for_env` takes them back
    "seed-demo": dataclasses.replace(
        _SEED,
        total_frames=5000,
        num_envs=2,
        frames_per_batch=32,
        batch_size=32,
        capacity=5000,
        evaluate_every=3200,  # every 100 batches
    ),
    "seed": dataclasses.replace(
        _SEED,
        total_frames=500_000,
        num_envs=8,
        frames_per_batch=128,
        batch_size=256,
        capacity=100_000,
        evaluate_every=12_800,
    ),
}
