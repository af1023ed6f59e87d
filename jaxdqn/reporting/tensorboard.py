"""TensorBoard event files, written by the calling thread: a write error ends the files and never the run.

The `SummaryWriter` of tensorboardX writes from a thread that dies if the disk is full; the program then waits for it
forever.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class EventFile:
    """Scalars of a run that one process writes."""

    def __init__(self, folder: Path, *, frames: int = 0) -> None:
        """Open a new file.

        Args:
            folder: The folder of event files.
            frames: Rows that were collected before; TensorBoard then ignores later frames in the older files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._writer: EventsWriter | None = EventsWriter(str(folder / "events"), f".{frames}")
        if frames:
            self._write(Event(step=frames + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, group: str, row: dict[str, Any], frames: int) -> None:
        """Write the numbers of a row, each as `group/name`."""
        for name, value in row.items():
            if name != "frames" and isinstance(value, int | float):
                self._write(Event(step=frames, wall_time=time.time(), summary=scalar(f"{group}/{name}", value)))

    def flush(self) -> None:
        """Flush the file to disk."""
        with self._close_on_error():
            if self._writer is not None:
                self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError:  # `close` flushes first, and leaves the file open if that fails
                with contextlib.suppress(OSError):
                    self._writer._py_recordio_writer.close()

    def _write(self, event: Event) -> None:
        with self._close_on_error():
            if self._writer is not None:
                self._writer.write_event(event)

    @contextlib.contextmanager
    def _close_on_error(self) -> Any:
        try:
            yield
        except OSError as error:
            self.close()
            self._writer = None
            warnings.warn(f"TensorBoard files are no longer written: {error}", RuntimeWarning, stacklevel=4)
