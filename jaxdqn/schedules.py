"""Values derived from a config and its observations: start of learning, learning rate, and capacity of replay."""

from __future__ import annotations

import dataclasses

import numpy as np
import optax

from jaxdqn.config import Config
from jaxdqn.learner import make_optimizer
from jaxdqn.observations import ObsSpec
from jaxdqn.replay import row_bytes, smallest_slots

MEMORY_SHARE = 0.5
"""Share of the free bytes for replay if the config sets no capacity; the rest of the run needs memory, too."""


def learning_start(config: Config, num_envs: int | None = None, stack: int | None = None) -> int:
    """Return the frames to collect before the first update: enough for the warm-up and for one window.

    Args:
        config: Configuration of the run.
        num_envs: Environments in lockstep; None: `config.num_envs`.
        stack: Frames per stack; None: `config.frame_stack`, or the default if that is None, too.

    Raises:
        ValueError: If the run ends before that.
    """
    if stack is None:
        stack = 1 if config.pixels is False else config.frame_stack or (4 if config.pixels else 1)
    slots = smallest_slots(config.n_steps, stack)
    start = max(config.warmup_frames, slots * (config.num_envs if num_envs is None else num_envs))
    if start > config.run_frames:
        raise ValueError(f"total_frames {config.total_frames} ends before learning starts at {start}: increase it")
    return start


def warm_up_batches(config: Config, num_envs: int | None = None, stack: int | None = None) -> int:
    """Return the number of batches before the first one that is followed by updates."""
    return -(-learning_start(config, num_envs, stack) // config.frames_per_batch) - 1


def config_optimizer(
    config: Config, num_envs: int | None = None, stack: int | None = None
) -> optax.GradientTransformation:
    """Return Adam with the settings of the config; its learning rate falls linearly from the first update to the last.

    Args:
        config: Configuration of the run.
        num_envs: Environments in lockstep; None: `config.num_envs`.
        stack: Frames per stack. See `learning_start`.

    Raises:
        ValueError: If the run ends before learning starts.
    """
    batches = config.num_batches - warm_up_batches(config, num_envs, stack)
    steps = max(batches * config.updates_per_batch - 1, 1)
    learning_rate = optax.linear_schedule(config.learning_rate, config.learning_rate_end, steps)
    return make_optimizer(learning_rate, config.weight_decay, config.max_gradient_norm)


def with_capacity(config: Config, obs: ObsSpec, bytes_available: int | None = None, copies: int = 1) -> Config:
    """Return the config with a capacity: its own, or the whole run limited to half of the free bytes.

    Args:
        config: Configuration of the run.
        obs: Spec of the observations.
        bytes_available: Free bytes in the memory or disk for replay's observations; None: no limit.
        copies: Number of rings, one for each seed that is trained side by side.
    """
    if config.capacity is not None:
        return config
    capacity = config.run_frames
    if bytes_available is not None:
        fits = int(bytes_available * MEMORY_SHARE) // (copies * row_bytes(obs.shape, np.dtype(obs.dtype)))
        least = max(smallest_slots(config.n_steps, obs.stack or 1) * config.num_envs, config.batch_size)
        capacity = min(capacity, max(fits, least, config.frames_per_batch))
    return dataclasses.replace(config, capacity=capacity // config.num_envs * config.num_envs)
