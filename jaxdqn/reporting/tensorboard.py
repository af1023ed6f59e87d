"""TensorBoard's event files, written by this thread: what cannot be written is left out and never ends a run.

tensorboardX's own `SummaryWriter` writes from a thread that dies of a full disk, after which the program waits for it
for ever.
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
    """Scalars of one process of a run."""

    def __init__(self, folder: Path, *, frames: int = 0) -> None:
        """Begin a file.

        Args:
            folder: Where event files are.
            frames: Rows that were collected before; TensorBoard then leaves out what other files have of later ones.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._writer: EventsWriter | None = EventsWriter(str(folder / "events"), f".{frames}")
        if frames:
            self._write(Event(step=frames + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, group: str, row: dict[str, Any], frames: int) -> None:
        """The numbers of a row, each as `group/name`."""
        for name, value in row.items():
            if name != "frames" and isinstance(value, int | float):
                self._write(Event(step=frames, wall_time=time.time(), summary=scalar(f"{group}/{name}", value)))

    def flush(self) -> None:
        """Have what was written on the disk."""
        with self._left_out():
            if self._writer is not None:
                self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError:  # it flushes first, and leaves the file open then
                with contextlib.suppress(OSError):
                    self._writer._py_recordio_writer.close()

    def _write(self, event: Event) -> None:
        with self._left_out():
            if self._writer is not None:
                self._writer.write_event(event)

    @contextlib.contextmanager
    def _left_out(self) -> Any:
        try:
            yield
        except OSError as error:
            self.close()
            self._writer = None
            warnings.warn(f"TensorBoard's files end here: {error}", RuntimeWarning, stacklevel=4)
