"""Values derived from a config and its observations: when learning starts, epsilon, and the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import optax
from jaxtyping import Array, Float, Int

from jaxdqn.config import Config
from jaxdqn.exploration import constant_epsilon, exponential_epsilon, linear_epsilon, linear_schedule
from jaxdqn.learner import make_optimizer
from jaxdqn.replay.capacity import smallest_slots


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


def config_epsilon(config: Config) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    """Return the config's epsilon as a function of the frame; with noisy layers it is 0 after the warm-up."""
    warm_up = config.warmup_frames
    if config.noisy or config.epsilon_schedule == "constant":
        return partial(constant_epsilon, value=0.0 if config.noisy else config.epsilon_end, warmup_frames=warm_up)
    return partial(
        exponential_epsilon if config.epsilon_schedule == "exponential" else linear_epsilon,
        start=config.epsilon_start,
        end=config.epsilon_end,
        duration_frames=config.epsilon_duration,
        warmup_frames=warm_up,
    )


def config_beta(config: Config) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    """Return the config's exponent of importance weights as a function of the frame: linear over the whole run."""
    start, end = config.priority_beta, config.priority_beta_end
    return partial(linear_schedule, start=start, end=end, duration_frames=config.run_frames)


def config_learning_rate(config: Config, num_envs: int | None = None, stack: int | None = None) -> optax.Schedule:
    """Return the learning rate over updates: it falls linearly from the first update to the last.

    See `config_optimizer` for arguments and errors.
    """
    batches = config.num_batches - warm_up_batches(config, num_envs, stack)
    steps = max(batches * config.updates_per_batch - 1, 1)
    return optax.linear_schedule(config.learning_rate, config.learning_rate_end, steps)


def config_optimizer(
    config: Config, num_envs: int | None = None, stack: int | None = None
) -> optax.GradientTransformation:
    """Return Adam with the settings of the config and its `config_learning_rate`.

    Args:
        config: Configuration of the run.
        num_envs: Environments in lockstep; None: `config.num_envs`.
        stack: Frames per stack. See `learning_start`.

    Raises:
        ValueError: If the run ends before learning starts.
    """
    learning_rate = config_learning_rate(config, num_envs, stack)
    return make_optimizer(learning_rate, config.weight_decay, config.max_gradient_norm, config.adam_epsilon)
