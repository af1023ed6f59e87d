"""Presets: configs by name, for `jaxdqn train PRESET`. Each lists every field that differs from `Config()`."""

from __future__ import annotations

from typing import Any

from jaxdqn.config import Config

# Common to all three presets, which learn CartPole from pixels.
_CARTPOLE: dict[str, Any] = {
    "pixels": True,
    "value_bias": 2.0,
    "weight_decay": 1e-5,
    "loss": "squared",
    "reward_scale": 0.1,
    "epsilon_start": 0.1,
    "epsilon_end": 0.005,
    "epsilon_frames": 0,
    "max_gradient_norm": None,
    "checkpoint_every": 3000,
}

# Common to both presets of TorchRL's tutorial.
_TORCHRL: dict[str, Any] = {
    **_CARTPOLE,
    "frame_stack": 4,
    "network": "torchrl",
    "normalisation_frames": 1000,
    "learning_rate": 2e-3,
    "learning_rate_end": 2e-3,
    "n_steps": 5,
    "double": False,
    "warmup_frames": 0,
    "updates_per_batch": 8,
    "greedy_params": "online",
}

RENAMED = {"seed": "torchrl", "seed-demo": "torchrl-demo"}
"""Former names of presets, which still work."""


class _Presets(dict[str, Config]):
    def __missing__(self, name: str) -> Config:
        if name not in RENAMED:
            raise KeyError(name)
        return self[RENAMED[name]]


PRESETS: dict[str, Config] = _Presets(
    {
        "cartpole": Config(
            **_CARTPOLE,
            frame_stack=6,
            network="padded-motion",
            normalisation_frames=200,
            random_shift=2,
            mirror=True,
            symmetries_of="CartPole-v1",
            total_frames=15_000,
            batch_size=32,
            capacity=15_000,
            n_steps=10,
            prioritized=True,
            tau=0.01,
            greedy_params="average",
            evaluate_every=2000,
        ),
        "torchrl-demo": Config(
            **_TORCHRL,
            total_frames=5000,
            num_envs=2,
            batch_size=32,
            capacity=5000,
            evaluate_every=3200,  # every 100 batches
        ),
        "torchrl": Config(
            **_TORCHRL,
            total_frames=500_000,
            frames_per_batch=128,
            batch_size=256,
            capacity=100_000,
            evaluate_every=12_800,
        ),
    }
)
