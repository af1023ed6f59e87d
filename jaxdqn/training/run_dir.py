"""The folder of a run: claim it for one run, lock it while the run trains, and release it if the run cannot begin."""

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
from jaxdqn.distributed.process_group import ProcessGroup
from jaxdqn.storage.atomic import wait_until_visible

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""File in a run's folder that is locked while the run is trained."""

_held: set[Path] = set()
"""Lock files that this process has locked."""


def check_output(config: Config) -> None:
    """Check that a new run can be written to `output`, before any work is done.

    Raises:
        ValueError: If it is a file, is not empty, or cannot be written.
    """
    if config.output is None:
        return
    folder = Path(config.output)
    invalid = next((c for c in config.output if c == "\\" or not c.isprintable()), None)
    if invalid is not None:
        raise ValueError(
            f"output {config.output!r} has {invalid!r} in it, which some file systems do not allow: choose another"
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


def claim_folder(config: Config, name: str, start_dir: Path) -> Path:
    """Create the folder of a run, so that no other run can claim it.

    Args:
        config: The run; its `output` is used as it is, unless it is None.
        name: Name under `runs/` if `output` is None; a number is added if the name is taken.
        start_dir: The folder to which paths are relative: environments may have changed the current folder since.

    Returns:
        The folder's absolute path.

    Raises:
        ValueError: If the folder cannot be created, or another run has claimed it.
    """
    if config.output is not None:
        folders = [Path(config.output)]
    else:
        folders = [Path("runs") / (name if index == 1 else f"{name}-{index}") for index in range(1, 10_000)]
    for folder in folders:
        path = start_dir / folder
        if config.output is None and path.exists():
            continue
        try:
            path.mkdir(parents=True, exist_ok=config.output is not None)
            _write_config(path, dataclasses.replace(config, output=str(folder)))
        except FileExistsError:
            continue
        except OSError as error:
            raise ValueError(f"output {str(folder)!r} cannot be made: {error.strerror}") from error
        return path
    raise ValueError(f"output {str(folders[-1])!r} is taken by another run: choose another folder")


def _write_config(folder: Path, config: Config) -> None:
    """Create `config.json`, complete as soon as it exists; raise `FileExistsError` if another run has created it."""
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    temporary = folder / f"config.json.{os.getpid()}"
    temporary.write_text(text)
    try:
        os.link(temporary, folder / "config.json")
    except (OSError, AttributeError) as error:
        if isinstance(error, FileExistsError):
            raise
        with (folder / "config.json").open("x") as file:  # a file system without hard links
            file.write(text)
    finally:
        temporary.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run's folder within the block against other processes, on this host and on others that share the folder.

    This is a record lock on a file that is open for writing: NFS passes such locks on to its server, but keeps `flock`
    locks on a folder local to each host. The kernel releases the lock when the process ends, even if it is killed. The
    lock does not exclude the process that has it, so `_held` lists the locks of this process. The empty file remains.

    Raises:
        ValueError: If this process or another one trains the run.
    """
    path, fd = folder.resolve() / LOCK, None
    if path in _held:
        raise ValueError(f"run {str(folder)!r} is being trained by this process: close that run, or iterate it")
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # not writable: the first write will fail, and name its file
                fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if fd is not None:
            _lock(fd, folder)
        _held.add(path)
        yield
    finally:
        if fd is not None:
            os.close(fd)
        _held.discard(path)


def _lock(fd: int, folder: Path) -> None:
    try:
        if hasattr(fcntl, "F_OFD_SETLK"):
            # Such a lock stays if this process closes the same file elsewhere, as code that copies the folder does.
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        else:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        raise ValueError(f"run {str(folder)!r} is being trained by another process: wait for it, or stop it") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system without locks
            raise


def move_to_earlier(folder: Path) -> Path | None:
    """Move a run's files, except its config, into a new folder `earlier-N` there; return None if there were none."""
    paths = [path for path in folder.iterdir() if path.name not in ("config.json", "versions.json", LOCK)]
    paths = [path for path in paths if not path.name.startswith("earlier-")]
    if not paths:
        return None
    earlier = next(new for new in (folder / f"earlier-{index}" for index in range(1, 10_000)) if not new.exists())
    earlier.mkdir()
    for path in paths:
        path.rename(earlier / path.name)
    return earlier


def _release(folder: Path) -> None:
    """Undo `claim_folder` for a run that cannot begin; other files in the folder stay."""
    for name in ("config.json", LOCK):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: the folder existed before
        folder.rmdir()


@contextlib.contextmanager
def release_on_failure(folder: Path, *, new: bool) -> Iterator[None]:
    """Release the folder of a run if the block fails and the folder is new."""
    try:
        yield
    except BaseException:
        if new:
            _release(folder)
        raise


def check_visible(folder: Path, group: ProcessGroup) -> None:
    """Raise `ValueError` if a process does not see the folder that the first process writes to."""
    if group.count == 1:
        return

    def create_probe() -> str:
        probe = folder / f"seen-{os.urandom(8).hex()}"
        probe.touch()
        return probe.name

    probe = folder / group.broadcast_from_first(create_probe)
    try:
        with group.exchange():
            if not wait_until_visible(probe.is_file):
                raise ValueError(f"output {str(folder)!r} is not the first process's: choose a folder that all share")
    finally:
        if group.is_first:
            probe.unlink(missing_ok=True)
