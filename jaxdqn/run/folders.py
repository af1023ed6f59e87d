"""The folder of a run: taken by one run, and given back by one that cannot begin."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from jaxdqn.config import Config


def check_output(config: Config) -> None:
    """Refuse an `output` that cannot hold a new run, before any work is done for it.

    Raises:
        ValueError: If it is a file, holds something already, or cannot be written.
    """
    if config.output is None:
        return
    folder = Path(config.output)
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


def claim_folder(config: Config, name: str) -> Path:
    """Make the folder of a run, and take it so that no other run can.

    Args:
        config: The run; an `output` of its own is taken as it is.
        name: Name under `runs/` otherwise, with a number behind it where it is taken.

    Raises:
        ValueError: If the folder cannot be made, or another run was quicker.
    """
    if config.output is not None:
        folders = [Path(config.output)]
    else:
        folders = [Path("runs") / (name if index == 1 else f"{name}-{index}") for index in range(1, 10_000)]
    for folder in folders:
        if config.output is None and folder.exists():
            continue
        try:
            folder.mkdir(parents=True, exist_ok=config.output is not None)
            (folder / "config.json").touch(exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise ValueError(f"output {str(folder)!r} cannot be made: {error.strerror}") from error
        return folder
    raise ValueError(f"output {str(folders[-1])!r} is taken by another run: choose another folder")


def release_folder(folder: Path) -> None:
    """Undo `claim_folder`, for a run that cannot begin after all; other files that are there stay."""
    (folder / "config.json").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: it was there before
        folder.rmdir()
