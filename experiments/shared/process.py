"""Memory of the current process; shared by the demos that `throughput.py` starts."""

from __future__ import annotations

import resource
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the peak memory of this process."""
    if STATUS.exists():  # on Linux `ru_maxrss` starts from the memory of the parent process
        field = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(field.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
