"""What this process has used so far; shared by the demos that `throughput.py` starts."""

from __future__ import annotations

import resource
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The most memory that it has held at once."""
    if STATUS.exists():  # on Linux `ru_maxrss` begins with what the parent process held
        field = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(field.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
