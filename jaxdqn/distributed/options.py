"""How a process finds those that it is to train with: what the flags say, before JAX is asked."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from dataclasses import dataclass


def split_address(address: str) -> tuple[str, int | None]:
    """Host and port of HOST, HOST:PORT, IPV6 or [IPV6]:PORT; the host is empty if that cannot be read.

    The brackets of an address of version 6 are taken off. The port is None where none is given.
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
    """How a process finds the others that it is to train with."""

    distributed: bool = False
    """Train with other processes, started with the same flags; SLURM, Open MPI and Kubernetes tell each its place."""
    coordinator: str | None = None
    """HOST:PORT of process 0, which waits there for the others; for where no cluster tells."""
    coordinator_bind: str | None = None
    """HOST or HOST:PORT on which process 0 listens, 0.0.0.0 for all interfaces; None: the coordinator's address, where
    that is this machine's own, else all interfaces. Whoever reaches it can join the run, or end it."""
    num_processes: int | None = None
    """How many processes there are; for where no cluster tells."""
    process_id: int | None = None
    """Which of them this one is, from 0; for where no cluster tells."""
    connect_timeout: int = 300
    """Seconds that processes wait for one another at the beginning."""

    def check(self) -> None:
        """Raise `ValueError` where the flags say nothing that can be done."""
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
