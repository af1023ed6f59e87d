"""Memory and disk space that are free for a run."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import psutil

# The memory limit of a container (Linux control groups, version 2); the machine's own figures do not show it.
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CONTAINER_USED = Path("/sys/fs/cgroup/memory.current")
_CONTAINER_ID = Path("/proc/self/ns/cgroup")  # not the host name: containers of one pod share it
_MACHINE_ID = Path("/proc/sys/kernel/random/boot_id")  # the same in all containers of a machine


class Sharing(NamedTuple):
    """How many processes of a run share the same memory.

    Attributes:
        machine: Processes on this machine, including this one.
        container: Processes in the same container, including this one.
    """

    machine: int = 1
    container: int = 1


ALONE = Sharing()


class FreeMemory(NamedTuple):
    """Memory that replay may use, measured before any process of the run has used it.

    Attributes:
        on_device: Bytes free on each device.
        for_obs: Bytes free where observations will be stored, for the whole run.
    """

    on_device: int
    for_obs: int


def machine_and_container() -> list[str]:
    """Return an identifier of this machine and one of this container."""
    host = socket.gethostname()
    try:
        return [_MACHINE_ID.read_text().strip(), str(_CONTAINER_ID.readlink())]
    except OSError:
        return [host, host]


def sharing_of(places: Sequence[list[str]], index: int) -> Sharing:
    """Return how many processes share the memory of process `index`.

    Args:
        places: What `machine_and_container` returned in each process.
        index: The process.
    """
    machine, container = places[index]
    containers = [other[1] for other in places if other[0] == machine]
    return Sharing(len(containers), containers.count(container))


def free_bytes(num_devices: int = 1, sharing: Sharing = ALONE) -> int:
    """Return the bytes free for each device: the accelerator's own memory, or a share of the host's.

    Args:
        num_devices: How many of this process's devices are used. Devices that the CPU is split into
            (`JAX_NUM_CPU_DEVICES`) share one memory.
        sharing: Processes of the run that share the host's memory.
    """
    found = [_own_free_bytes(device) for device in jax.local_devices()[:num_devices]]
    return min((free for free in found if free is not None), default=free_host_bytes(sharing) // num_devices)


def _own_free_bytes(device: jax.Device) -> int | None:
    stats = device.memory_stats() if device.platform != "cpu" else None
    if not stats or "bytes_limit" not in stats:
        return None
    return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))


def free_host_bytes(sharing: Sharing = ALONE) -> int:
    """Return this process's share, in bytes, of the memory free on this machine or in its container."""
    free = int(psutil.virtual_memory().available) // sharing.machine
    try:
        limit = _CONTAINER_LIMIT.read_text().strip()
        if limit == "max":
            return free
        return min(free, (int(limit) - int(_CONTAINER_USED.read_text())) // sharing.container)
    except (OSError, ValueError):
        return free


def free_disk_bytes(output: str | None) -> int:
    """Return the bytes free on the disk of a run's folder, which need not exist yet."""
    folder = Path(output or "runs").absolute()
    return shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.exists())).free
