"""Presets: configs by name, for `jaxdqn train PRESET`. Each lists every field that differs from `Config()`."""

from __future__ import annotations

from typing import Any

from jaxdqn.config import Config

# Common to the presets that learn CartPole from pixels.
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

# Common to the presets of TorchRL's tutorial.
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

# Common to the presets of Atari games.
_ATARI: dict[str, Any] = {
    "env": "ALE/Pong-v5",
    "frame_size": 84,
    "frame_skip": 4,
    "frame_stack": 4,
    "normalisation_frames": 0,  # bytes divided by 255
    "network": "nature",
    "activation": "relu",
    "clip_rewards": True,
    "capacity": 1_000_000,
    "batch_size": 32,
    "max_gradient_norm": None,
    "greedy_params": "online",
    "log_every": 1_000,
    "evaluate_every": 250_000,
    "checkpoint_every": 250_000,
}

# DQN on Atari: one step of return, action values without dueling heads, and an update every four steps.
_ATARI_DQN: dict[str, Any] = {
    **_ATARI,
    "dueling": False,
    "double": False,
    "loss": "squared",
    "n_steps": 1,
    "frames_per_batch": 32,
    "updates_per_batch": 8,
    "epsilon_end": 0.01,
}

# Rainbow in Dopamine: the support is that of clipped rewards, and the importance weights are not annealed.
_RAINBOW: dict[str, Any] = {
    **_ATARI,
    "distribution": "c51",
    "v_min": -10.0,
    "v_max": 10.0,
    "prioritized": True,
    "priority_alpha": 0.5,
    "priority_beta": 0.5,
    "priority_beta_end": 0.5,
    "noisy": True,
    "noisy_sigma": 0.1,
    "adam_epsilon": 1.5e-4,
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
        # Young and Tian, 2019, arXiv:1903.03176, with Adam, and an update every four steps
        "minatar": Config(
            env="MinAtar/Breakout-v1",
            loop="device",
            network="grid",
            dueling=False,
            activation="relu",
            total_frames=1_000_000,
            frames_per_batch=32,
            updates_per_batch=8,
            batch_size=32,
            capacity=100_000,
            warmup_frames=5_000,
            learning_rate=2.5e-4,
            learning_rate_end=2.5e-4,
            n_steps=1,
            double=False,
            max_gradient_norm=None,
            target_period=250,
            epsilon_end=0.1,
            epsilon_frames=105_000,
            greedy_params="online",
            log_every=1_000,
            evaluate_every=50_000,
            checkpoint_every=250_000,
        ),
        # Pong on two cores: frames with a quarter of the usual pixels, and a network that suits them
        "pong": Config(
            env="ALE/Pong-v5",
            frame_size=42,
            sticky_actions=0.0,
            noop_max=30,
            network="cnn",
            total_frames=600_000,
            batch_size=32,
            warmup_frames=5_000,
            learning_rate=5e-4,
            epsilon_end=0.01,
            epsilon_frames=40_000,
            log_every=1_000,
            evaluate_every=50_000,
            checkpoint_every=50_000,
        ),
        # CleanRL's dqn_atari: https://docs.cleanrl.dev/rl-algorithms/dqn/
        "atari": Config(
            **_ATARI_DQN,
            sticky_actions=0.0,
            noop_max=30,
            fire_reset=True,
            terminal_on_life_loss=True,
            total_frames=10_000_000,
            warmup_frames=80_000,
            learning_rate=1e-4,
            learning_rate_end=1e-4,
            target_period=250,
            epsilon_frames=1_000_000,
        ),
        # Dopamine's dqn.gin: Castro et al., 2018, arXiv:1812.06110
        "atari-sticky": Config(
            **_ATARI_DQN,
            sticky_actions=0.25,
            total_frames=50_000_000,
            warmup_frames=20_000,
            learning_rate=6.25e-5,
            learning_rate_end=6.25e-5,
            adam_epsilon=1.5e-4,
            target_period=2_000,
            epsilon_frames=270_000,
        ),
        # Dopamine's full_rainbow.gin: the numbers of Hessel et al., 2018, arXiv:1710.02298
        "rainbow-atari": Config(
            **_RAINBOW,
            sticky_actions=0.25,
            total_frames=50_000_000,
            frames_per_batch=32,
            updates_per_batch=8,
            warmup_frames=20_000,
            learning_rate=6.25e-5,
            learning_rate_end=6.25e-5,
            n_steps=3,
            target_period=2_000,
        ),
        # Dopamine's DER.gin: data-efficient Rainbow, van Hasselt et al., 2019, arXiv:1906.05243
        "der": Config(
            **{**_RAINBOW, "capacity": 100_000, "evaluate_every": 10_000, "checkpoint_every": 10_000},
            sticky_actions=0.0,
            noop_max=29,
            terminal_on_life_loss=True,
            total_frames=100_000,
            num_envs=1,
            frames_per_batch=1,
            updates_per_batch=1,
            warmup_frames=1_600,
            learning_rate=1e-4,
            learning_rate_end=1e-4,
            n_steps=10,
            target_period=2_000,
        ),
    }
)
