"""Files that are whole or not there: JSON whose faults name the file, and tables that grow by whole lines."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VISIBLE_WITHIN = 20.0
"""Seconds within which a file that one process has written is seen by others, on a file system of a network."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which replaces it in one step when the block ends well.

    A reader sees the old file or the new one, never a part; a block that raises, or is interrupted, leaves the old one.
    A link stays, and the file that it leads to is replaced.

    Raises:
        ValueError: If there is something that is no file, such as a folder or a device.
    """
    if path.is_symlink():
        path = path.resolve()
    if not path.name or (path.exists() and not path.is_file()):
        raise ValueError(f"{str(path)!r} is no file that can be written: choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with with_path_in_oserror(path):
            yield partial
            flush_file(partial)
        partial.replace(path)
        flush_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def flush_file(path: Path) -> None:
    """Have a file on the disk, and not only in its cache."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextlib.contextmanager
def with_path_in_oserror(path: Path) -> Iterator[None]:
    """An `OSError` within that names no file, as that of a full disk, names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def wait_until_visible(there: Callable[[], bool]) -> bool:
    """Wait for what another process has written; whether it has come within `VISIBLE_WITHIN`."""
    deadline = time.monotonic() + VISIBLE_WITHIN
    while not there():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def write_json(path: Path, value: Any) -> None:
    """Write a value, indented, in one step."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object; raises `ValueError` that names the file where it holds none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no object of fields")
    return value
