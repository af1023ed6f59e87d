"""The priorities of replay on disk: `priorities.npz` in each process's part of a state.

Rows are in files of their own, which later states reuse; priorities change at every update, and are written each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxdqn.replay.priorities import BLOCK, Priorities

NAME = "priorities.npz"


def write_priorities(folder: Path, priorities: Priorities) -> None:
    """Write the priorities of a process's ring."""
    arrays = {name: np.asarray(values) for name, values in priorities._asdict().items()}
    np.savez(folder / NAME, **arrays)  # type: ignore[arg-type]  # no key is named allow_pickle


def read_priorities(
    parts: Sequence[tuple[Path, slice]], like: Priorities, *, slots: int, num_envs: int, exact: bool
) -> Priorities:
    """Read priorities.

    Args:
        parts: For each process that wrote rows that are needed: the folder of its part, and the columns (environments)
            to read from it.
        like: Priorities of this process's ring, on the devices on which they are needed.
        slots: Slots of the ring.
        num_envs: Environments of each part.
        exact: Whether the run has the same processes as the saved one; with the same devices, too, every bit is the
            same. Otherwise the largest priority of all devices becomes that of each.

    Raises:
        ValueError: If a file is missing: the state was written without prioritised replay.
    """
    found = []
    for folder, _ in parts:
        if not (folder / NAME).is_file():
            raise ValueError(f"{folder} holds no priorities: it was saved without prioritized, restore config.json")
        with np.load(folder / NAME, allow_pickle=False) as archive:
            found.append(Priorities(*(archive[name] for name in Priorities._fields)))
    devices = like.largest.shape[0]
    if not (exact and found[0].largest.shape == like.largest.shape):
        columns = [_columns_of(part, slots, num_envs)[:, which] for part, (_, which) in zip(found, parts, strict=True)]
        largest = max(float(part.largest.max()) for part in found)
        found = [_from_columns(np.concatenate(columns, axis=1), devices, largest)]
    return jax.tree.map(lambda x, old: jax.device_put(jnp.asarray(x), old.sharding), found[0], like)


def _columns_of(priorities: Priorities, slots: int, num_envs: int) -> np.ndarray:
    """Return the weights `[L, N]` of the rows of all devices."""
    devices = priorities.largest.shape[0]
    width = num_envs // devices
    parts = [part.reshape(-1) for part in np.split(np.asarray(priorities.weights), devices)]
    return np.concatenate([part[: slots * width].reshape(slots, width) for part in parts], axis=1)


def _from_columns(weights: np.ndarray, devices: int, largest: float) -> Priorities:
    """Return the priorities of rows that are divided over some devices."""
    blocks = []
    for part in np.split(weights, devices, axis=1):
        padding = -part.size % BLOCK
        blocks.append(np.pad(part.reshape(-1), (0, padding)).reshape(-1, BLOCK))
    rows = [np.int32((part > 0).sum()) for part in np.split(weights, devices, axis=1)]
    stacked = np.concatenate(blocks)
    return Priorities(stacked, stacked.sum(axis=1), np.full(devices, largest, np.float32), np.array(rows))  # type: ignore[arg-type]
