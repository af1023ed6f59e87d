"""Replay files that a new checkpoint reuses from an earlier one, because their rows have not changed.

A file is hard-linked from the checkpoint that is deleted once the new one is complete, or otherwise copied from the
newest one. So no two kept checkpoints share a file: one flipped bit would damage both. (If the process is killed
between writing the new checkpoint and deleting the old one, they share files until the next one is written.)

The SHA-256 of each file is known since it was written, so a file is linked without reading it. But in each checkpoint
one of every `CHECKED_EVERY` linked files is read and compared, in turn. A file that the disk has damaged is therefore
written again from the ring within `CHECKED_EVERY` checkpoints.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CHECKED_EVERY = 8
"""Checkpoints within which every linked file is read once: an eighth of replay each time."""

_COPY_BYTES = 2**20
"""Bytes that are read and copied at a time."""


class WrittenFile(NamedTuple):
    """A file that was intact when it was last checked.

    Attributes:
        entry: Its entry in the manifest: size and SHA-256.
        modified_ns: Its modification time at that check, in nanoseconds.
        slots: Number of slots of the ring that it holds.
    """

    entry: dict[str, Any]
    modified_ns: int
    slots: int


class WrittenReplay(NamedTuple):
    """A ring that was written to disk.

    Attributes:
        folder: Folder of its files.
        cursor: Slot of the next row when it was written.
        rows: Rows of each environment that had been added to the ring by then.
        files: The files when they were last known to be intact, by name.
        times_linked: How many times files have been linked from one checkpoint to the next, up to this one.
    """

    folder: Path
    cursor: int
    rows: int
    files: dict[str, WrittenFile]
    times_linked: int = 0


class EarlierReplay(NamedTuple):
    """Checkpoints of a ring that exist when another one is written.

    Attributes:
        newest: The newest one; its files may be copied.
        expiring: The one that is deleted once the new one is complete; its files may be linked. None if there is none.
    """

    newest: WrittenReplay
    expiring: WrittenReplay | None


class Reuse:
    """Reuses files of earlier checkpoints in a new one."""

    def __init__(self, earlier: EarlierReplay, *, rows: int, slots: int, length: int) -> None:
        """Find the slots that were overwritten since the earlier checkpoints.

        Args:
            earlier: The earlier checkpoints.
            rows: Rows of each environment that have been added to the ring.
            slots: Number of slots of the ring.
            length: Number of slots of a file.
        """
        self._length = length
        self._sources = [(earlier.newest, False, _overwritten(earlier.newest, rows, slots))]
        if earlier.expiring is not None:
            self._sources.insert(0, (earlier.expiring, True, _overwritten(earlier.expiring, rows, slots)))

    def try_reuse(self, name: str, first: int, count: int, folder: Path) -> dict[str, Any] | None:
        """Link or copy an earlier file of slots `first` to `first + count - 1` into a folder, if it is still valid.

        Returns:
            Its entry in the manifest; None if there is no such file, or it is no longer what was written.

        Raises:
            OSError: If a copy cannot be written.
        """
        index = first // self._length
        for source, link, overwritten in self._sources:
            known = source.files.get(name)
            if known is None or known.slots != count or overwritten[first : first + count].any():
                continue
            old, path = source.folder / name, folder / name
            if _is_modified(old, known):
                continue
            if link and _try_link(old, path):
                check = index % CHECKED_EVERY == source.times_linked % CHECKED_EVERY
                if not check or _sha256(path) == known.entry["sha256"]:
                    return known.entry
                path.unlink()
                continue
            if _sha256(old, path) == known.entry["sha256"]:
                return known.entry
            path.unlink(missing_ok=True)
        return None


def _is_modified(old: Path, known: WrittenFile) -> bool:
    try:
        found = old.stat()
    except OSError:
        return True
    return (found.st_size, found.st_mtime_ns) != (known.entry["bytes"], known.modified_ns)


def _try_link(old: Path, path: Path) -> bool:
    """Hard-link a file; return False if the file system has no links, or two checkpoints already share the file."""
    with contextlib.suppress(OSError):
        if old.stat().st_nlink == 1:
            path.hardlink_to(old)
            return True
    path.unlink(missing_ok=True)  # NFS may report an error although it made the link
    return False


def _sha256(old: Path, copy: Path | None = None) -> str | None:
    """Return the SHA-256 of a file, and copy the file if `copy` is given; None if the file cannot be read."""
    digest = hashlib.sha256()
    with contextlib.ExitStack() as files:
        target = None if copy is None else files.enter_context(copy.open("xb"))
        try:
            source = files.enter_context(old.open("rb"))
        except OSError:
            return None
        while True:
            try:
                data = source.read(_COPY_BYTES)
            except OSError:
                return None
            if not data:
                return digest.hexdigest()
            digest.update(data)
            if target is not None:
                target.write(data)


def _overwritten(before: WrittenReplay, rows: int, slots: int) -> np.ndarray:
    """Return which slots were overwritten since an earlier checkpoint, `[L]` bool."""
    changed = np.ones(slots, bool)
    if 0 <= rows - before.rows < slots:
        changed[:] = False
        changed[(before.cursor + np.arange(rows - before.rows)) % slots] = True
    return changed
