"""Standard streams that do not stop a run if their reader closes or the disk behind them is full."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any


class _Output(io.FileIO):
    """The file of a standard stream. If a write fails, the rest of the output goes to the null device.

    Attributes:
        fault: What the first failed write raised; None if all writes succeeded.
    """

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes; store a failure in `fault` and do not raise it."""
        try:
            while (written := super().write(data)) is None:  # a non-blocking pipe that is full
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            self.fault = error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(data)


def guard_streams() -> None:
    """Make standard output and standard error of this process safe to write to; call it before anything is written.

    A stream that was closed when the process began is opened on the null device. Otherwise the next file that is opened
    would get its number, and receive what libraries print. A write that fails no longer raises an error, because a
    progress line, or an environment that prints, would then stop the run. Characters that the encoding lacks are
    written as escapes. Streams that the program has replaced with its own stay as they are.
    """
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _guarded(stream))


def _guarded(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    buffer: Any = stream.buffer
    raw = getattr(buffer, "raw", buffer)
    if type(raw) is not io.FileIO:  # guarded already, or a console of Windows
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    file = _Output(raw.fileno(), "w", closefd=False)
    file.name = raw.name
    return io.TextIOWrapper(
        file if buffer is raw else io.BufferedWriter(file),  # unbuffered, as `python -u` is
        encoding=stream.encoding,
        errors="backslashreplace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def finish_streams(code: int) -> int:
    """Write what is still buffered, so that the interpreter's exit has nothing left to fail on.

    Args:
        code: Exit code of the command.

    Returns:
        The exit code. It is 1 in place of 0 if standard output could not be written, which is reported on standard
        error; a reader that has closed the pipe, as in `jaxdqn --help | head -1`, is not an error.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    fault = getattr(getattr(buffer, "raw", buffer), "fault", None)
    if fault is None or fault.errno == errno.EPIPE:
        return code
    print(f"jaxdqn: standard output cannot be written: {fault.strerror}", file=sys.stderr, flush=True)
    return code or 1
