"""Memory and disk that a run may take, and where it keeps what it compiled."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import jax
import psutil

# The limit of a container (Linux control groups, version 2), which the machine's own figures do not show.
_LIMIT = Path("/sys/fs/cgroup/memory.max")
_USED = Path("/sys/fs/cgroup/memory.current")
_OWN_HINT = r"\s*\((set|you may need).*\)$"  # of JAX, for programmers


def find_devices() -> list[jax.Device]:
    """Return JAX's devices of this process.

    Raises:
        ValueError: If JAX finds none on the platform that `JAX_PLATFORMS` names.
    """
    try:
        return jax.local_devices()
    except (AssertionError, RuntimeError) as error:  # the former for a platform whose plugin is not installed
        said = (str(error).strip() or "its plugin for JAX is not installed").splitlines()[0]
        asked = jax.config.values["jax_platforms"]
        where = f"JAX_PLATFORMS {asked!r} gives" if asked else "JAX finds"
        mend = "; unset it, or set it to cpu" if asked else ""
        raise ValueError(f"{where} no device: {re.sub(_OWN_HINT, '', said).rstrip('.')}{mend}") from error


def free_bytes() -> int:
    """Memory free on the device where arrays go by default: the accelerator's own, or the host's."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    return free_host_bytes()


def free_host_bytes() -> int:
    """Memory free on this machine, or in its container."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = _LIMIT.read_text().strip()
        return free if limit == "max" else min(free, int(limit) - int(_USED.read_text()))
    except (OSError, ValueError):
        return free


def free_disk_bytes(output: str | None) -> int:
    """Disk free where a run's folder is, or will be made."""
    folder = Path(output or "runs").absolute()
    return shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.exists())).free


def keep_programs() -> None:
    """Keep compiled programs from one process to the next, in `~/.cache/jaxdqn` (`$XDG_CACHE_HOME/jaxdqn`).

    Where the user has named a folder to JAX, it is that one. Where it cannot be written, JAX warns and compiles.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        try:
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxdqn"
        except RuntimeError:  # a user without a home, as in some containers
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
