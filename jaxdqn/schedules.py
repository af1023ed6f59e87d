"""What follows from a run's config and its observations alone: when it learns, how fast, and how much it holds."""

from __future__ import annotations

import dataclasses

import numpy as np
import optax

from jaxdqn.config import Config
from jaxdqn.learner import make_optimizer
from jaxdqn.observations import ObsSpec
from jaxdqn.replay import row_bytes, smallest_slots

MEMORY_SHARE = 0.5
"""Share of the free bytes that replay takes where the config leaves its capacity open: the rest of a run needs some."""


def learning_start(config: Config, num_envs: int | None = None, stack: int | None = None) -> int:
    """Frames to collect before the first update: the warm-up, and what one window needs.

    Args:
        config: The run.
        num_envs: Environments in lockstep; None takes the config's.
        stack: Frames to a stack; None takes the config's, or what is usual where it names none.

    Raises:
        ValueError: If the run is over before.
    """
    if stack is None:
        stack = 1 if config.pixels is False else config.frame_stack or (4 if config.pixels else 1)
    slots = smallest_slots(config.n_steps, stack)
    start = max(config.warmup_frames, slots * (config.num_envs if num_envs is None else num_envs))
    if start > config.run_frames:
        raise ValueError(f"total_frames {config.total_frames} end before learning starts at {start}: raise them")
    return start


def warm_up_batches(config: Config, num_envs: int | None = None, stack: int | None = None) -> int:
    """Batches after which nothing is learned; the updates of the next one are the first."""
    return -(-learning_start(config, num_envs, stack) // config.frames_per_batch) - 1


def config_optimizer(
    config: Config, num_envs: int | None = None, stack: int | None = None
) -> optax.GradientTransformation:
    """Adam as the config says: its step size falls linearly from the first update to the last.

    Args:
        config: The run.
        num_envs: Environments in lockstep; None takes the config's.
        stack: As `learning_start` has it.

    Raises:
        ValueError: If the run is over before learning starts.
    """
    batches = config.num_batches - warm_up_batches(config, num_envs, stack)
    steps = max(batches * config.updates_per_batch - 1, 1)
    learning_rate = optax.linear_schedule(config.learning_rate, config.learning_rate_end, steps)
    return make_optimizer(learning_rate, config.weight_decay, config.max_gradient_norm)


def with_capacity(config: Config, obs: ObsSpec, bytes_available: int | None = None, copies: int = 1) -> Config:
    """The config with a capacity: its own, or the whole run as far as half of the free bytes hold it.

    Args:
        config: The run.
        obs: What is observed.
        bytes_available: Bytes free where replay's observations will be; None: as many as it needs.
        copies: Replays of as many seeds that are trained side by side.
    """
    if config.capacity is not None:
        return config
    capacity = config.run_frames
    if bytes_available is not None:
        fits = int(bytes_available * MEMORY_SHARE) // (copies * row_bytes(obs.shape, np.dtype(obs.dtype)))
        least = max(smallest_slots(config.n_steps, obs.stack or 1) * config.num_envs, config.batch_size)
        capacity = min(capacity, max(fits, least, config.frames_per_batch))
    return dataclasses.replace(config, capacity=capacity // config.num_envs * config.num_envs)
