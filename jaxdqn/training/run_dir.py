"""The folder of a run: taken by one run, and given back by one that cannot begin."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from jaxdqn.config import Config

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""File of a run's folder that is locked while the run is trained."""

_held: set[Path] = set()
"""Locks of this process."""


def check_output(config: Config) -> None:
    """Refuse an `output` that cannot hold a new run, before any work is done for it.

    Raises:
        ValueError: If it is a file, holds something already, or cannot be written.
    """
    if config.output is None:
        return
    folder = Path(config.output)
    strange = next((c for c in config.output if c == "\\" or not c.isprintable()), None)
    if strange is not None:
        raise ValueError(
            f"output {config.output!r} has {strange!r} in it, which not all files can have: choose another"
        )
    if folder.is_dir() and any(folder.iterdir()):
        what = "already holds a run" if (folder / "config.json").exists() else "is not empty"
        raise ValueError(f"output {str(folder)!r} {what}: choose another folder, or delete it")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output {str(folder)!r} is a file: choose a folder")
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        raise ValueError(f"output {str(folder)!r} cannot be made: {str(parent)!r} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"output {str(folder)!r} cannot be made: {str(parent)!r} is not writable")


def claim_folder(config: Config, name: str, here: Path) -> Path:
    """Make the folder of a run, and take it so that no other run can.

    Args:
        config: The run; an `output` of its own is taken as it is.
        name: Name under `runs/` otherwise, with a number behind it where it is taken.
        here: The folder that relative paths begin at: environments may have changed the current one since.

    Returns:
        The folder's absolute path.

    Raises:
        ValueError: If the folder cannot be made, or another run was quicker.
    """
    if config.output is not None:
        folders = [Path(config.output)]
    else:
        folders = [Path("runs") / (name if index == 1 else f"{name}-{index}") for index in range(1, 10_000)]
    for folder in folders:
        at = here / folder
        if config.output is None and at.exists():
            continue
        try:
            at.mkdir(parents=True, exist_ok=config.output is not None)
            _write_config(at, dataclasses.replace(config, output=str(folder)))
        except FileExistsError:
            continue
        except OSError as error:
            raise ValueError(f"output {str(folder)!r} cannot be made: {error.strerror}") from error
        return at
    raise ValueError(f"output {str(folders[-1])!r} is taken by another run: choose another folder")


def _write_config(folder: Path, config: Config) -> None:
    """Make `config.json`, whole from its first moment; raises `FileExistsError` where another run has."""
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    aside = folder / f"config.json.{os.getpid()}"
    aside.write_text(text)
    try:
        os.link(aside, folder / "config.json")
    except (OSError, AttributeError) as error:
        if isinstance(error, FileExistsError):
            raise
        with (folder / "config.json").open("x") as file:  # a file system without links
            file.write(text)
    finally:
        aside.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let no other process go on with a run meanwhile, on this host or another that shares its folder.

    A record lock on a file that is open for writing: NFS passes such locks on to its server, and keeps those of `flock`
    on a folder to each host. The kernel gives it back when the process ends, however it does. Such a lock does not keep
    out the process that holds it, so what this one holds is remembered beside. The file stays; it is empty.

    Raises:
        ValueError: If one does.
    """
    path, number = folder.resolve() / LOCK, None
    if path in _held:
        raise ValueError(f"run {str(folder)!r} is being trained by this process: close that run, or iterate it")
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # not writable: what is to be written says so, and names the file
                number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if number is not None:
            _lock(number, folder)
        _held.add(path)
        yield
    finally:
        if number is not None:
            os.close(number)
        _held.discard(path)


def _lock(number: int, folder: Path) -> None:
    try:
        if hasattr(fcntl, "F_OFD_SETLK"):
            # Not lost where this process closes the file elsewhere, as code that copies the folder does.
            fcntl.fcntl(number, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        else:
            fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        raise ValueError(f"run {str(folder)!r} is being trained by another process: wait for it, or end it") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system without locks
            raise


def move_to_earlier(folder: Path) -> Path | None:
    """Move what a run has left, but its config, into a folder of its own within; None where there was nothing."""
    left = [path for path in folder.iterdir() if path.name not in ("config.json", "versions.json", LOCK)]
    left = [path for path in left if not path.name.startswith("earlier-")]
    if not left:
        return None
    aside = next(new for new in (folder / f"earlier-{index}" for index in range(1, 10_000)) if not new.exists())
    aside.mkdir()
    for path in left:
        path.rename(aside / path.name)
    return aside


def release_folder(folder: Path) -> None:
    """Undo `claim_folder`, for a run that cannot begin after all; other files that are there stay."""
    for name in ("config.json", LOCK):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: it was there before
        folder.rmdir()
