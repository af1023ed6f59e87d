"""Atomic file writes, JSON files whose errors name the file, and helpers for files on disk."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VISIBLE_WITHIN = 20.0
"""Seconds to wait until a file that one process wrote is visible to others, on a network file system."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces `path` atomically when the block ends without an error.

    A reader sees the old file or the new one, never a part. If the block raises or is interrupted, the old file stays.
    If `path` is a symbolic link, the link stays and its target is replaced.

    Raises:
        ValueError: If `path` exists and is not a regular file, such as a folder or a device.
    """
    if path.is_symlink():
        path = path.resolve()
    if not path.name or (path.exists() and not path.is_file()):
        raise ValueError(f"{str(path)!r} is not a file that can be written: choose another name")
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
    """Flush a file from the cache to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk, if the system supports it."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def with_path_in_oserror(path: Path) -> Iterator[None]:
    """Add this path to an `OSError` raised in the block that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def wait_until_visible(is_visible: Callable[[], bool]) -> bool:
    """Wait for files that another process wrote; return whether they are visible within `VISIBLE_WITHIN` seconds."""
    deadline = time.monotonic() + VISIBLE_WITHIN
    while not is_visible():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raise `ValueError` that names the file if it cannot be read or holds no object."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return value
