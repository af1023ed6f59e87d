"""The flags with which a process finds the other processes of its run."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from dataclasses import dataclass


def split_address(address: str) -> tuple[str, int | None]:
    """Return host and port of HOST, HOST:PORT, IPV6 or [IPV6]:PORT; the host is empty if the address is invalid.

    The host has no brackets. The port is None if none is given.
    """
    with contextlib.suppress(ValueError):
        return str(ipaddress.IPv6Address(address)), None
    found = re.fullmatch(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:\s]+))(?::(?P<port>[0-9]{1,5}))?", address)
    if found is None:
        return "", None
    port = None if found["port"] is None else int(found["port"])
    if port is not None and not 0 < port < 2**16:
        return "", None
    if found["six"] is None:
        return found["host"], port
    try:
        return str(ipaddress.IPv6Address(found["six"])), port
    except ValueError:
        return "", None


@dataclass(frozen=True)
class DistributedOptions:
    """How a process finds the other processes of its run."""

    distributed: bool = False
    """Train with other processes, started with the same flags; SLURM, Open MPI and Kubernetes need no other flag."""
    coordinator: str | None = None
    """HOST:PORT on which process 0 waits for the others; only needed if no cluster sets it."""
    coordinator_bind: str | None = None
    """HOST or HOST:PORT on which process 0 listens, 0.0.0.0 for all interfaces; None: the coordinator's address if it
    is one of this machine only, otherwise all interfaces. Anyone who can reach it can join the run, or end it."""
    num_processes: int | None = None
    """Number of processes; only needed if no cluster sets it."""
    process_id: int | None = None
    """Index of this process, from 0; only needed if no cluster sets it."""
    connect_timeout: int = 300
    """Seconds that processes wait for each other at the start."""

    def check(self) -> None:
        """Raise `ValueError` if a flag is invalid, or needs another one."""
        for name in ("coordinator", "coordinator_bind", "num_processes", "process_id"):
            if getattr(self, name) is not None and not self.distributed:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)} needs --distributed: add it")
        if self.coordinator is not None and not all(split_address(self.coordinator)):
            raise ValueError(f"--coordinator {self.coordinator!r} must be HOST:PORT, as in 10.0.0.1:12345")
        if self.coordinator_bind is not None and not split_address(self.coordinator_bind)[0]:
            raise ValueError(f"--coordinator-bind {self.coordinator_bind!r} must be HOST or HOST:PORT, as in 10.0.0.1")
        if self.num_processes is not None and self.num_processes < 1:
            raise ValueError(f"--num-processes {self.num_processes} must be at least 1")
        if self.process_id is not None and not 0 <= self.process_id < (self.num_processes or 2**31):
            raise ValueError(f"--process-id {self.process_id} must be from 0 to --num-processes - 1")
        if self.connect_timeout < 1:
            raise ValueError(f"--connect-timeout {self.connect_timeout} must be at least 1")
