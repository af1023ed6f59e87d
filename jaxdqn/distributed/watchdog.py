"""A watchdog process that prints how to resume a run whose process was killed, or was ended by JAX.

When another process is lost, JAX ends this one from C++, without a message about the run. The watchdog does not import
JAX, and lives as long as the process that it watches.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from jaxdqn.resume_command import resume_hint


class Watchdog:
    """Starts the watchdog process of this process, and stops it."""

    def __init__(self, name: str) -> None:
        """Start the watchdog process.

        Args:
            name: Name of this process in the watchdog's message.
        """
        # Isolated (`-I`) from environment variables and the current folder, with this process's module path.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-c",
                code,
                name,
            ],
            stdin=subprocess.PIPE,
            start_new_session=True,  # so that it does not receive Ctrl-C
        )

    def watch(self, folder: Path) -> None:
        """Send the folder of the run to the watchdog."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # the watchdog was killed; the run continues without it
            self._process.stdin.write(f"{folder.absolute()}\n".encode())
            self._process.stdin.flush()

    def dismiss(self) -> None:
        """Stop the watchdog without a message."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.dismiss()


def main() -> None:
    """Wait until the watched process has ended, then print the message."""
    folder = ""
    for line in sys.stdin:
        folder = line.strip()
    where = f"; {resume_hint(Path(folder))}" if folder else ""
    name = sys.argv[1]
    print(
        f"jaxdqn: training stopped: {name} was killed, or ended by JAX because another process was lost "
        f"(JAX then names it above){where}",
        file=sys.stderr,
    )
