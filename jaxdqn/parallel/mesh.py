"""The devices of a run as a mesh, and the share of a run that each device or process has."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from jaxtyping import Array

from jaxdqn.config import Config

AXIS = "devices"


def make_mesh(num_devices: int, num_processes: int = 1) -> Mesh:
    """Return a one-dimensional mesh of the first devices of this process, or of every process.

    Args:
        num_devices: Number of devices of each process.
        num_processes: 1 for this process only, or `jax.process_count()` for all processes.

    Raises:
        ValueError: If there are fewer devices, or `num_processes` is another number.
    """
    if num_processes not in (1, jax.process_count()):
        raise ValueError(f"num_processes {num_processes} must be 1 or the number of processes, {jax.process_count()}")
    local = jax.local_devices()
    if num_devices > len(local):
        hint = f"; set JAX_NUM_CPU_DEVICES={num_devices} to split the CPU" if local[0].platform == "cpu" else ""
        if local[0].platform != "cpu" and jax.process_count() > 1:
            hint = "; a cluster may assign one to each process: set JAX_LOCAL_DEVICE_IDS=0,1,... for more"
        found = f"{len(local)} {local[0].platform}"
        raise ValueError(f"num_devices {num_devices} are not available: JAX finds {found}{hint}")
    processes = [jax.process_index()] if num_processes == 1 else range(num_processes)
    devices = [jax.local_devices(process_index=index)[:num_devices] for index in processes]
    return Mesh(np.array(devices).reshape(-1), (AXIS,), axis_types=(AxisType.Auto,))


def part_of(config: Config, parts: int) -> Config:
    """Return the config of one device's or one process's share of a run: environments, frames, replay and batches.

    Args:
        config: The run.
        parts: Number of equal shares.

    Raises:
        ValueError: If a field cannot be split evenly; the message names the nearest values that can.
    """
    config.check_split(parts)
    num_envs = config.num_envs // parts
    return dataclasses.replace(
        config,
        num_devices=1,
        num_envs=num_envs,
        batch_size=config.batch_size // parts,
        capacity=config.planned_capacity // config.num_envs * num_envs,
        frames_per_batch=config.frames_per_batch // parts,
        total_frames=config.run_frames // parts,
        warmup_frames=-(-config.warmup_frames // parts),
        epsilon_frames=-(-config.epsilon_frames // parts) if config.epsilon_frames else config.epsilon_frames,
    )


def share_of(config: Config) -> Config:
    """Return the config of this process's share of a run; all of it if it is the only process."""
    return config if jax.process_count() == 1 else part_of(config, jax.process_count())


def devices_of(array: Array) -> list[np.ndarray]:
    """Return each device's part of an array, in the order of the devices."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.device.id)
    return [np.asarray(shard.data) for shard in shards]
