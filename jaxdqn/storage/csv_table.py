"""A CSV file that is written one complete line at a time."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxdqn.storage.atomic import atomic_write, with_path_in_oserror


class Table:
    """A CSV file that can be read while it is written: it always holds complete lines, even if the disk is full."""

    def __init__(self, path: Path, columns: Sequence[str], *, until: int = 0) -> None:
        """Start a new file, or continue an existing one.

        Args:
            path: The file.
            columns: Its columns.
            until: Keep the lines of an existing file whose first column is at most this; 0 starts from scratch.
        """
        self._path = path
        self._columns = columns
        kept = _whole_lines(path, columns, until) if until and path.is_file() else []
        with atomic_write(path) as partial, partial.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([columns, *kept])
        self._file = path.open("ab", buffering=0)

    def write(self, row: dict[str, Any]) -> None:
        """Append a line. If it cannot be written, leave the file as it was and raise `OSError`."""
        line = io.StringIO()
        csv.DictWriter(line, self._columns, lineterminator="\n").writerow(row)
        data, size = line.getvalue().encode(), self._file.seek(0, os.SEEK_END)
        try:
            with with_path_in_oserror(self._path):
                while data:  # after a partial write, the next one raises the reason
                    data = data[self._file.write(data) :]
        except OSError:
            self._file.truncate(size)
            raise

    def flush(self) -> None:
        """Flush what was written to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _whole_lines(path: Path, columns: Sequence[str], until: int) -> list[list[str]]:
    with path.open(newline="") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    kept = [line for line in lines if len(line) == len(header) and line[0].isdecimal() and int(line[0]) <= until]
    rows = [dict(zip(header, line, strict=True)) for line in kept]
    return [[row.get(column, "") for column in columns] for row in rows]  # older files have fewer columns
