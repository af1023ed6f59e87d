"""Files of replay that are taken over from an earlier checkpoint, because nothing in them has changed.

A file is linked from the checkpoint that is deleted when the new one is whole, and else copied from the newest one: no
two checkpoints that are kept share a file, of which a bit that flips would damage both. (They do where a process was
killed between the new one and the deletion, until the next one is written.)

Of each file the SHA-256 is known since it was written, and it is not read again to be linked; but one of every
`CHECKED_EVERY` files that are linked is read and compared, in turn. So what a disk has lost is written anew from the
ring within as many checkpoints.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CHECKED_EVERY = 8
"""Checkpoints in which every file that is linked has been read once: an eighth of replay each time."""

_PIECE = 2**20
"""Bytes that are copied at once."""


class WrittenFile(NamedTuple):
    """A file that was whole at a moment.

    Attributes:
        entry: Its entry in the manifest: size and SHA-256.
        changed: When its content was last changed by then, in nanoseconds.
        slots: Slots of the ring that it holds.
    """

    entry: dict[str, Any]
    changed: int
    slots: int


class WrittenReplay(NamedTuple):
    """A ring as it lies on disk.

    Attributes:
        folder: Where its files are.
        cursor: Slot of the next row at that time.
        rows: Rows of each environment that the ring had been given by then.
        files: What each file was when it was whole, by its name.
        times: How often files were linked from one checkpoint to the next until this one.
    """

    folder: Path
    cursor: int
    rows: int
    files: dict[str, WrittenFile]
    times: int = 0


class EarlierReplay(NamedTuple):
    """Checkpoints of a ring that are there when another one is written.

    Attributes:
        newest: Whose files may be copied.
        expiring: One that is deleted when the new one is whole: its files may be linked. None where there is none.
    """

    newest: WrittenReplay
    expiring: WrittenReplay | None


class Reuse:
    """Takes files of earlier checkpoints over into a new one."""

    def __init__(self, earlier: EarlierReplay, *, rows: int, slots: int, length: int) -> None:
        """Find out which slots have other rows by now.

        Args:
            earlier: The checkpoints.
            rows: Rows of each environment that the ring has been given.
            slots: Slots of the ring.
            length: Slots of a file.
        """
        self._length = length
        self._sources = [(earlier.newest, False, _overwritten(earlier.newest, rows, slots))]
        if earlier.expiring is not None:
            self._sources.insert(0, (earlier.expiring, True, _overwritten(earlier.expiring, rows, slots)))

    def take_over(self, name: str, first: int, count: int, folder: Path) -> dict[str, Any] | None:
        """Have a file of slots `first` to `first + count - 1` in a folder, if an earlier one is the same.

        Returns:
            Its entry in the manifest; None where there is none, or where it is no longer what was written.

        Raises:
            OSError: If a copy cannot be written.
        """
        index = first // self._length
        for source, link, overwritten in self._sources:
            known = source.files.get(name)
            if known is None or known.slots != count or overwritten[first : first + count].any():
                continue
            old, path = source.folder / name, folder / name
            if _changed(old, known):
                continue
            if link and _linked(old, path):
                check = index % CHECKED_EVERY == source.times % CHECKED_EVERY
                if not check or _digest(path) == known.entry["sha256"]:
                    return known.entry
                path.unlink()
                continue
            if _digest(old, path) == known.entry["sha256"]:
                return known.entry
            path.unlink(missing_ok=True)
        return None


def _changed(old: Path, known: WrittenFile) -> bool:
    try:
        found = old.stat()
    except OSError:
        return True
    return (found.st_size, found.st_mtime_ns) != (known.entry["bytes"], known.changed)


def _linked(old: Path, path: Path) -> bool:
    """Link a file; False where the file system has no links, or where two checkpoints share the file already."""
    with contextlib.suppress(OSError):
        if old.stat().st_nlink == 1:
            path.hardlink_to(old)
            return True
    path.unlink(missing_ok=True)  # NFS may have made a link that it reports as an error
    return False


def _digest(old: Path, copy: Path | None = None) -> str | None:
    """The SHA-256 of a file, which is copied at that; None where a disk does not read it."""
    digest = hashlib.sha256()
    with contextlib.ExitStack() as files:
        target = None if copy is None else files.enter_context(copy.open("xb"))
        try:
            source = files.enter_context(old.open("rb"))
        except OSError:
            return None
        while True:
            try:
                piece = source.read(_PIECE)
            except OSError:
                return None
            if not piece:
                return digest.hexdigest()
            digest.update(piece)
            if target is not None:
                target.write(piece)


def _overwritten(before: WrittenReplay, rows: int, slots: int) -> np.ndarray:
    """Which slots have other rows than when they were written before `[L]`."""
    changed = np.ones(slots, bool)
    if 0 <= rows - before.rows < slots:
        changed[:] = False
        changed[(before.cursor + np.arange(rows - before.rows)) % slots] = True
    return changed
