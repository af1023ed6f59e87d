"""Runs of older versions: the values of fields that an older `config.json` does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxdqn.config import RENAMED_NETWORK, Config

OLD_VALUES: dict[str, Any] = {
    "env": "CartPole-v1",
    "output": None,
    "seed": 0,
    "pixels": True,
    "frame_size": 64,
    "frame_stack": 4,
    "normalisation_frames": 200,
    "network": "motion",
    "compute_dtype": "float32",
    "random_shift": 0,
    "mirror": False,
    "total_frames": 18000,
    "num_envs": 8,
    "num_devices": 1,
    "loop": "host",
    "collector": "sync",
    "frames_per_batch": 32,
    "batch_size": 32,
    "updates_per_batch": 32,
    "capacity": 18000,
    "replay_storage": "device",
    "warmup_frames": 1000,
    "learning_rate": 0.001,
    "learning_rate_end": 5e-05,
    "weight_decay": 1e-05,
    "gamma": 0.99,
    "n_steps": 10,
    "tau": 0.005,
    "double": True,
    "loss": "squared",
    "reward_scale": 0.1,
    "clip_rewards": False,
    "terminal_on_life_loss": False,
    "epsilon_start": 0.1,
    "epsilon_end": 0.005,
    "max_gradient_norm": None,
    "evaluate_every": 3000,
    "evaluation_episodes": 10,
    "greedy_params": "target",
    "log_every": 0,
    "checkpoint_every": 3000,
    "keep": 2,
    "checkpoint_replay": True,
    "restart_workers": False,
    "frame_skip": None,
    "sticky_actions": None,
    "noop_max": None,
    "fire_reset": None,
    "eval_env": None,
    "colour": False,
    "value_bias": 2.0,
    "symmetries_of": None,
    "epsilon_frames": 0,
    "max_episode_steps": 1000000,
    "stop_seconds": 20.0,
    "checkpoint_seconds": 0.0,
    "layer_norm": False,
    "dueling": True,
    "activation": "elu",
    "munchausen": False,
    "munchausen_alpha": 0.9,
    "munchausen_tau": 0.03,
    "munchausen_clip": -1.0,
    "distribution": "none",
    "atoms": 51,
    "v_min": None,
    "v_max": None,
    "quantiles": 200,
    "iqn_taus": 8,
    "prioritized": False,
    "priority_alpha": 0.6,
    "priority_beta": 0.4,
    "priority_beta_end": 1.0,
    "target_period": None,
    "noisy": False,
    "noisy_sigma": 0.5,
    "epsilon_schedule": "linear",
    "adam_epsilon": 1e-8,
}
"""The default of each field before `Config()` became neutral, or the value that matches what older versions did.

A `config.json` has every field that existed when it was written, so a missing field was added later.
"""


def config_of_file(fields: Mapping[str, Any]) -> Config:
    """Return the config of a `config.json`. A missing field gets the value that the run was trained with.

    Raises:
        ValueError: If a field does not exist, or has an invalid value.
    """
    return Config.from_dict({**OLD_VALUES, **fields})


def with_new_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a config that an earlier version wrote, with values that were renamed since replaced."""
    old, new = RENAMED_NETWORK
    return {**fields, "network": new} if fields.get("network") == old else dict(fields)
