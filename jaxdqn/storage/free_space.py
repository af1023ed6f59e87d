"""Memory and disk that a run may take, and where it keeps what it compiled."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import psutil

# The limit of a container (Linux control groups, version 2), which the machine's own figures do not show.
_LIMIT = Path("/sys/fs/cgroup/memory.max")
_USED = Path("/sys/fs/cgroup/memory.current")
_CONTAINER = Path("/proc/self/ns/cgroup")  # not the host's name, which containers of one pod share
_BOOT = Path("/proc/sys/kernel/random/boot_id")  # which containers of a machine share


class Sharing(NamedTuple):
    """How many processes of a run have the same memory.

    Attributes:
        machine: Processes on this machine, this one among them.
        container: Those of them in the same container.
    """

    machine: int = 1
    container: int = 1


ALONE = Sharing()


def machine_and_container() -> list[str]:
    """What is the same for processes on one machine, and for those in one container of it."""
    host = socket.gethostname()
    try:
        return [_BOOT.read_text().strip(), str(_CONTAINER.readlink())]
    except OSError:
        return [host, host]


def sharing_of(places: Sequence[list[str]], index: int) -> Sharing:
    """How many processes share a process's memory, by what `machine_and_container` gave each of them."""
    machine, container = places[index]
    there = [other[1] for other in places if other[0] == machine]
    return Sharing(len(there), there.count(container))


def free_bytes(num_devices: int = 1, sharing: Sharing = ALONE) -> int:
    """Memory free for each of this process's first devices: the accelerator's own, or a share of the host's.

    Args:
        num_devices: How many are used. Those that the CPU is split into (`JAX_NUM_CPU_DEVICES`) have one memory.
        sharing: Other processes of the run that use the host's memory.
    """
    found = [_own_free_bytes(device) for device in jax.local_devices()[:num_devices]]
    return min((free for free in found if free is not None), default=free_host_bytes(sharing) // num_devices)


def _own_free_bytes(device: jax.Device) -> int | None:
    stats = device.memory_stats() if device.platform != "cpu" else None
    if not stats or "bytes_limit" not in stats:
        return None
    return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))


def free_host_bytes(sharing: Sharing = ALONE) -> int:
    """This process's share of the memory free on this machine, or in its container."""
    free = int(psutil.virtual_memory().available) // sharing.machine
    try:
        limit = _LIMIT.read_text().strip()
        return free if limit == "max" else min(free, (int(limit) - int(_USED.read_text())) // sharing.container)
    except (OSError, ValueError):
        return free


def free_disk_bytes(output: str | None) -> int:
    """Disk free where a run's folder is, or will be made."""
    folder = Path(output or "runs").absolute()
    return shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.exists())).free
