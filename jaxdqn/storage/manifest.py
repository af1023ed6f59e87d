"""Folders whose every byte is accounted for: a manifest has a SHA-256 of each file, checked before it is read."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from jaxdqn.storage.atomic import flush_file, flush_folder, read_json, with_path_in_oserror, write_json

MANIFEST = "manifest.json"


class DamagedError(ValueError):
    """A folder that does not hold what was written; the message names the file."""


@contextmanager
def sealed_folder(target: Path, facts: dict[str, Any], known: dict[str, Any] | None = None) -> Iterator[Path]:
    """A folder to fill, which appears as `target` with its manifest when the block ends well; else nothing does.

    Args:
        target: The folder, which must not be there.
        facts: What the manifest says besides, as JSON takes it. Entries may be added within the block.
        known: As `seal` has it. Entries may be added within the block.
    """
    partial = partial_path(target)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        with with_path_in_oserror(target):
            yield partial
        seal(partial, target, facts, known)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_path(target: Path) -> Path:
    """Where a folder is filled before it has its name."""
    return target.with_name(target.name + ".partial")


def seal(partial: Path, target: Path, facts: dict[str, Any], known: dict[str, Any] | None = None) -> None:
    """Write the manifest of a folder that has been filled, and give the folder its name.

    Everything is on the disk, and not only in its cache, before it has that. For a folder in it that is sealed itself,
    the manifest there stands for its files.

    Args:
        partial: The folder.
        target: Its name.
        facts: As `sealed_folder` has it.
        known: Size and SHA-256 of files that need not be read for it, by their names in the folder.
    """
    files = list(_files(partial))
    for path in files:
        flush_file(path)
    names = {path.relative_to(partial).as_posix(): path for path in files}
    listed = {name: (known or {}).get(name) or _entry(path) for name, path in names.items()}
    # The manifest is a file like others, and its own digest is in it: that of the rest of it.
    body = {**facts, "files": listed}
    write_json(partial / MANIFEST, {**body, "sha256": _digest_of(body)})
    for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
        flush_folder(folder)
    partial.rename(target)
    flush_folder(target.parent)


def amend(folder: Path, facts: dict[str, Any]) -> None:
    """Say other things in the manifest of a folder whose files stay as they are; in one step, as they were or as now.

    Args:
        folder: A folder that is sealed.
        facts: What is to be said from now on, by name; all else stays.

    Raises:
        DamagedError: If its manifest is not what was written.
    """
    body = {**read_manifest(folder), **facts}
    write_json(folder / MANIFEST, {**body, "sha256": _digest_of(body)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a manifest says, its digest checked but no other file.

    Raises:
        DamagedError: If there is none, or it is not what was written.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DamagedError(f"{path} is missing")
    try:
        body = read_json(path)
    except ValueError as error:
        raise DamagedError(str(error)) from error
    if body.pop("sha256", None) != _digest_of(body):
        raise DamagedError(f"{path} is damaged: it is not what was written")
    return body


def digest_of(folder: Path) -> str | None:
    """SHA-256 of a folder's manifest; None where there is none to be seen."""
    path = folder / MANIFEST
    return _entry(path)["sha256"] if path.is_file() else None


def verified(folder: Path, missing_processes: list[str] | None = None) -> dict[str, Any]:
    """What the manifest of a folder says, every file checked.

    Args:
        folder: The folder.
        missing_processes: Takes the names of sealed folders in it that are not there at all; None refuses that.

    Raises:
        DamagedError: If a file is missing, is not what was written, or is not listed; a name that leads out of the
            folder is not looked at.
    """
    body = read_manifest(folder)
    listed = _listed(folder, body)
    for name, wanted in listed.items():
        path = folder / name
        if missing_processes is not None and path.name == MANIFEST and not path.parent.exists():
            missing_processes.append(path.parent.name)
            continue
        if not path.is_file():
            raise DamagedError(f"{path} is missing")
        try:
            found = _entry(path)
        except OSError as error:  # the usual face of a bad disk
            raise DamagedError(f"{path} cannot be read: {error}") from error
        if found["bytes"] != wanted["bytes"]:
            raise DamagedError(f"{path} is damaged: it has {found['bytes']:,} bytes of {wanted['bytes']:,}")
        if found != wanted:
            raise DamagedError(f"{path} is damaged: its SHA-256 is not the one that was written")
        if path.name == MANIFEST:
            verified(path.parent)
    more = {path.relative_to(folder).as_posix() for path in _files(folder)} - {*listed, MANIFEST, f"{MANIFEST}.partial"}
    if more:
        raise DamagedError(f"{folder / min(more)} is not in the manifest: it was not written with the rest")
    return body


def _listed(folder: Path, body: dict[str, Any]) -> dict[str, Any]:
    """The files that a manifest lists, by names that stay in its folder."""
    files = body.get("files")
    if not isinstance(files, dict):
        raise DamagedError(f"{folder / MANIFEST} lists no files")
    for name, entry in files.items():
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in name or PureWindowsPath(name).drive:
            raise DamagedError(f"{folder / MANIFEST} lists {name!r}, which is outside of its folder")
        inside = [folder.joinpath(*parts[: index + 1]) for index in range(len(parts))]
        if any(path.is_symlink() for path in inside):
            raise DamagedError(f"{folder / name} is a link, which may lead out of its folder")
        if not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
            raise DamagedError(f"{folder / MANIFEST} says nothing of {name!r}")
    return files


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield path
        elif (path / MANIFEST).is_file():
            yield path / MANIFEST
        else:
            yield from _files(path)


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _digest_of(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
