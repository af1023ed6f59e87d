"""Memory that a run may take."""

from __future__ import annotations

from pathlib import Path

import jax
import psutil

# The limit of a container (Linux control groups, version 2), which the machine's own figures do not show.
_LIMIT = Path("/sys/fs/cgroup/memory.max")
_USED = Path("/sys/fs/cgroup/memory.current")


def free_bytes() -> int:
    """Memory free on the device where arrays go by default: the accelerator's own, or the host's."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    free = int(psutil.virtual_memory().available)
    try:
        limit = _LIMIT.read_text().strip()
        return free if limit == "max" else min(free, int(limit) - int(_USED.read_text()))
    except (OSError, ValueError):
        return free
