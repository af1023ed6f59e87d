"""How a process finds those that it is to train with: what the flags say, before JAX is asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """How a process finds the others that it is to train with."""

    distributed: bool = False
    """Train with other processes, started with the same flags; SLURM, Open MPI and Kubernetes tell each its place."""
    coordinator: str | None = None
    """HOST:PORT of process 0, which waits there for the others; for where no cluster tells."""
    num_processes: int | None = None
    """How many processes there are; for where no cluster tells."""
    process_id: int | None = None
    """Which of them this one is, from 0; for where no cluster tells."""
    connect_timeout: int = 300
    """Seconds that processes wait for one another at the beginning."""

    def check(self) -> None:
        """Raise `ValueError` where the flags say nothing that can be done."""
        for name in ("coordinator", "num_processes", "process_id"):
            if getattr(self, name) is not None and not self.distributed:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)} needs --distributed: add it")
        host, _, port = (self.coordinator or "localhost:1").rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"--coordinator {self.coordinator!r} must be HOST:PORT, as in 10.0.0.1:12345")
        if self.num_processes is not None and self.num_processes < 1:
            raise ValueError(f"--num-processes {self.num_processes} must be at least 1")
        if self.process_id is not None and not 0 <= self.process_id < (self.num_processes or 2**31):
            raise ValueError(f"--process-id {self.process_id} must be from 0 to --num-processes - 1")
        if self.connect_timeout < 1:
            raise ValueError(f"--connect-timeout {self.connect_timeout} must be at least 1")
