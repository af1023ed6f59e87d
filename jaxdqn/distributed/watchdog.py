"""Who speaks for a process that cannot: JAX ends one whose peer is lost from C++, with no word of the run.

A process of its own waits for that. It imports nothing of JAX, and lives as long as what it watches.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from jaxdqn.resume_command import resume_hint


class Watchdog:
    """Tells what became of a run whose process ends without having said so itself."""

    def __init__(self, name: str) -> None:
        """Start it.

        Args:
            name: What to call this process.
        """
        # Isolated from the environment's variables and the current folder, with this process's own path.
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
            start_new_session=True,  # so that Ctrl-C leaves it alone
        )

    def watch(self, folder: Path) -> None:
        """Say which run it is."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it was killed, and the run goes on without it
            self._process.stdin.write(f"{folder.absolute()}\n".encode())
            self._process.stdin.flush()

    def dismiss(self) -> None:
        """End it: everything has been said."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.dismiss()


def main() -> None:
    """Wait until the process that has started this one is gone."""
    folder = ""
    for line in sys.stdin:
        folder = line.strip()
    where = f"; {resume_hint(Path(folder))}" if folder else ""
    name = sys.argv[1]
    print(
        f"jaxdqn: training stopped: {name} was ended from outside, or by JAX because a peer was lost "
        f"(JAX then says above which){where}",
        file=sys.stderr,
    )
