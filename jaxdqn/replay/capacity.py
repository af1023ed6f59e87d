"""The capacity of replay: how many rows a run needs, how many bytes they take, and whether they fit."""

from __future__ import annotations

import dataclasses
from math import prod

import numpy as np
from numpy.typing import DTypeLike

from jaxdqn.config import Config
from jaxdqn.observations import ObsSpec

MEMORY_SHARE = 0.5
"""Share of the free bytes for replay if the config sets no capacity; the rest of the run needs memory, too."""


def row_bytes(
    obs_shape: tuple[int, ...], obs_dtype: DTypeLike, *, prioritized: bool = False, num_actions: int | None = None
) -> int:
    """Return the bytes of one row: the observation, action, reward, two flags, the step's index, and what is optional.

    Args:
        obs_shape: Shape of one observation.
        obs_dtype: Its dtype.
        prioritized: Whether each row has a priority.
        num_actions: Number of actions if each row has a mask of them; None: it has none.
    """
    return obs_bytes(obs_shape, obs_dtype) + 4 + 4 + 1 + 1 + 4 + 4 * prioritized + (num_actions or 0)


def config_row_bytes(config: Config, obs: ObsSpec, num_masked: int | None = None) -> int:
    """Return the bytes of one row of a run; `num_masked` is the number of actions if rows have masks of them."""
    return row_bytes(obs.shape, obs.dtype, prioritized=config.prioritized, num_actions=num_masked)


def obs_bytes(obs_shape: tuple[int, ...], obs_dtype: DTypeLike) -> int:
    """Return the bytes of one observation."""
    return prod(obs_shape) * np.dtype(obs_dtype).itemsize


def smallest_slots(n_steps: int, stack: int | None) -> int:
    """Return the number of slots with which a full ring can always be sampled: a stack, a window, and one more.

    Of any two neighbouring rows at least one is not a final observation.
    """
    return (stack or 1) + n_steps + 1


def smallest_capacity(config: Config, obs: ObsSpec) -> int:
    """Return the fewest rows with which a run's replay can always be sampled."""
    return smallest_slots(config.n_steps, obs.stack) * config.num_envs


def check_fits(
    capacity: int,
    *,
    num_envs: int,
    bytes_per_row: int,
    bytes_available: int,
    smallest: int,
    storage: str = "memory",
    copies: int = 1,
) -> None:
    """Raise `ValueError` with the largest capacity that fits, if rows need more bytes than are available.

    If not even `smallest` rows fit, the message asks to free some `storage`. There are `copies` rings, one for each
    seed that is trained side by side.
    """
    num_bytes = copies * (capacity // num_envs * num_envs * bytes_per_row + 8)
    if num_bytes <= bytes_available:
        return
    largest = max(bytes_available // copies - 8, 0) // (bytes_per_row * num_envs) * num_envs
    remedy = f"the largest that fits is {largest}" if largest >= smallest else f"free some {storage}"
    seeds = f" of {copies} seeds" if copies > 1 else ""
    raise ValueError(
        f"capacity {capacity} needs {num_bytes:,} bytes of replay{seeds} and {bytes_available:,} are free: {remedy}"
    )


def check_capacity(
    config: Config, obs: ObsSpec, bytes_available: int, copies: int = 1, *, num_masked: int | None = None
) -> None:
    """Check that a run's replay is large enough to be sampled, and fits where its observations are stored.

    Args:
        config: The run, with a capacity.
        obs: Spec of the observations.
        bytes_available: Free bytes of all devices together, or where `config.replay_storage` says.
        copies: Number of rings, one for each seed that is trained side by side.
        num_masked: Number of actions if rows have masks of them.

    Raises:
        ValueError: If it is too small or does not fit.
    """
    check_large_enough(config.planned_capacity, config.num_envs, config.n_steps, obs.stack)
    on_device = config.replay_storage == "device"
    check_fits(
        config.planned_capacity,
        num_envs=config.num_envs,
        bytes_per_row=config_row_bytes(config, obs, num_masked) if on_device else obs_bytes(obs.shape, obs.dtype),
        bytes_available=bytes_available,
        smallest=smallest_capacity(config, obs),
        storage="disk" if config.replay_storage == "disk" else "memory",
        copies=copies,
    )


def check_large_enough(capacity: int, num_envs: int, n_steps: int, stack: int | None) -> None:
    """Raise `ValueError` if a ring has too few slots to be sampled always."""
    smallest = smallest_slots(n_steps, stack)
    if capacity // num_envs < smallest:
        raise ValueError(
            f"capacity {capacity} is too small: {num_envs} environments with n_steps {n_steps} and "
            f"{stack or 1}-frame stacks need at least {smallest * num_envs}"
        )


def with_capacity(
    config: Config,
    obs: ObsSpec,
    bytes_available: int | None = None,
    copies: int = 1,
    *,
    num_masked: int | None = None,
) -> Config:
    """Return the config with a capacity: its own, or the whole run limited to half of the free bytes.

    Args:
        config: Configuration of the run.
        obs: Spec of the observations.
        bytes_available: Free bytes in the memory or disk for replay's observations; None: no limit.
        copies: Number of rings, one for each seed that is trained side by side.
        num_masked: Number of actions if rows have masks of them.
    """
    if config.capacity is not None:
        return config
    capacity = config.run_frames
    if bytes_available is not None:
        fits = int(bytes_available * MEMORY_SHARE) // (copies * config_row_bytes(config, obs, num_masked))
        least = max(smallest_capacity(config, obs), config.batch_size)
        capacity = min(capacity, max(fits, least, config.frames_per_batch))
    return dataclasses.replace(config, capacity=capacity // config.num_envs * config.num_envs)
