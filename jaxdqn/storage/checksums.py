"""Folders with a manifest: it lists the SHA-256 of every file, and files are checked before they are read."""

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
    """A folder does not hold what was written; the message names the file."""


@contextmanager
def sealed_folder(target: Path, facts: dict[str, Any], known: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yield a folder to fill. If the block ends without an error, it becomes `target`, with a manifest.

    If the block raises, nothing is left.

    Args:
        target: The folder, which must not exist.
        facts: Additional fields of the manifest, as JSON values. Fields may be added within the block.
        known: See `seal`. Entries may be added within the block.
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
    """Return the temporary path where a folder is filled before it is renamed to `target`."""
    return target.with_name(target.name + ".partial")


def seal(partial: Path, target: Path, facts: dict[str, Any], known: dict[str, Any] | None = None) -> None:
    """Write the manifest of a filled folder, and rename the folder to its final name.

    Everything is flushed to the disk before the folder is renamed. If a subfolder has a manifest of its own, only that
    manifest is listed and not the subfolder's files.

    Args:
        partial: The filled folder.
        target: Its final path.
        facts: See `sealed_folder`.
        known: Manifest entries (size and SHA-256) of files that need not be read, by their names in the folder.
    """
    files = list(_files(partial))
    for path in files:
        flush_file(path)
    names = {path.relative_to(partial).as_posix(): path for path in files}
    listed = {name: (known or {}).get(name) or _entry(path) for name, path in names.items()}
    # The manifest also holds its own digest: that of all its other fields.
    body = {**facts, "files": listed}
    write_json(partial / MANIFEST, {**body, "sha256": _digest_of(body)})
    for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
        flush_folder(folder)
    partial.rename(target)
    flush_folder(target.parent)


def amend(folder: Path, facts: dict[str, Any]) -> None:
    """Change fields of a folder's manifest, atomically. The folder's files stay as they are.

    Args:
        folder: A folder with a manifest.
        facts: The fields to set, by name; all others stay.

    Raises:
        DamagedError: If the manifest is not what was written.
    """
    body = {**read_manifest(folder), **facts}
    write_json(folder / MANIFEST, {**body, "sha256": _digest_of(body)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest and check its digest; no other file is checked.

    Raises:
        DamagedError: If it is missing, or is not what was written.
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
    """Return the SHA-256 of a folder's manifest file; None if there is no manifest."""
    path = folder / MANIFEST
    return _entry(path)["sha256"] if path.is_file() else None


def check_folder(folder: Path, missing_processes: list[str] | None = None) -> dict[str, Any]:
    """Check every file of a folder, and return the fields of its manifest.

    Args:
        folder: The folder.
        missing_processes: Names of subfolders with a manifest that are missing are appended to this list. If it is
            None, a missing one is an error.

    Raises:
        DamagedError: If a file is missing, is not what was written, or is not listed, or if the manifest lists a path
            outside the folder, which is not read.
    """
    body = read_manifest(folder)
    listed = _checked_files(folder, body)
    for name, wanted in listed.items():
        path = folder / name
        if missing_processes is not None and path.name == MANIFEST and not path.parent.exists():
            missing_processes.append(path.parent.name)
            continue
        if not path.is_file():
            raise DamagedError(f"{path} is missing")
        try:
            found = _entry(path)
        except OSError as error:  # usually a bad disk
            raise DamagedError(f"{path} cannot be read: {error}") from error
        if found["bytes"] != wanted["bytes"]:
            raise DamagedError(f"{path} is damaged: it has {found['bytes']:,} bytes and not {wanted['bytes']:,}")
        if found != wanted:
            raise DamagedError(f"{path} is damaged: its SHA-256 is not the one that was written")
        if path.name == MANIFEST:
            check_folder(path.parent)
    present = {path.relative_to(folder).as_posix() for path in _files(folder)}
    unlisted = present - {*listed, MANIFEST, f"{MANIFEST}.partial"}
    if unlisted:
        raise DamagedError(f"{folder / min(unlisted)} is not in the manifest: it was not written with the other files")
    return body


def _checked_files(folder: Path, body: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of the files that a manifest lists. Raise `DamagedError` if one is outside its folder."""
    files = body.get("files")
    if not isinstance(files, dict):
        raise DamagedError(f"{folder / MANIFEST} lists no files")
    for name, entry in files.items():
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in name or PureWindowsPath(name).drive:
            raise DamagedError(f"{folder / MANIFEST} lists {name!r}, which is outside its folder")
        inside = [folder.joinpath(*parts[: index + 1]) for index in range(len(parts))]
        if any(path.is_symlink() for path in inside):
            raise DamagedError(f"{folder / name} is a symbolic link, which may lead out of its folder")
        if not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
            raise DamagedError(f"{folder / MANIFEST} has no size or SHA-256 of {name!r}")
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
