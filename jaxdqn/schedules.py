"""When a run begins to learn, and with what step sizes: what follows from its config alone."""

from __future__ import annotations

import optax

from jaxdqn.config import Config
from jaxdqn.learner import make_optimizer
from jaxdqn.replay import smallest_slots


def learning_start(config: Config, num_envs: int | None = None) -> int:
    """Frames to collect before the first update: the warm-up, and what one window needs.

    Args:
        config: The run.
        num_envs: Environments in lockstep; None takes the config's.

    Raises:
        ValueError: If the run is over before.
    """
    slots = smallest_slots(config.n_steps, config.frame_stack if config.pixels else 1)
    start = max(config.warmup_frames, slots * (config.num_envs if num_envs is None else num_envs))
    if start > config.num_batches * config.frames_per_batch:
        raise ValueError(f"total_frames {config.total_frames} end before learning starts at {start}: raise them")
    return start


def warm_up_batches(config: Config, num_envs: int | None = None) -> int:
    """Batches after which nothing is learned; the updates of the next one are the first."""
    return -(-learning_start(config, num_envs) // config.frames_per_batch) - 1


def config_optimizer(config: Config, num_envs: int | None = None) -> optax.GradientTransformation:
    """Adam as the config says: its step size falls linearly from the first update to the last.

    Args:
        config: The run.
        num_envs: Environments in lockstep; None takes the config's.

    Raises:
        ValueError: If the run is over before learning starts.
    """
    steps = max((config.num_batches - warm_up_batches(config, num_envs)) * config.updates_per_batch - 1, 1)
    learning_rate = optax.linear_schedule(config.learning_rate, config.learning_rate_end, steps)
    return make_optimizer(learning_rate, config.weight_decay, config.max_gradient_norm)
