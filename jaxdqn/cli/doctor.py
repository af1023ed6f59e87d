"""Checks of what a run needs from this machine."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from jaxdqn.config import Config
from jaxdqn.distributed.devices import find_devices
from jaxdqn.envs.gymnasium.building import make_env_fn
from jaxdqn.replay.capacity import row_bytes
from jaxdqn.storage.free_memory import free_bytes, free_disk_bytes, free_host_bytes
from jaxdqn.versions import versions

_MIB = 2**20


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        name: What was checked.
        found: What was found.
        fix: How to fix it; None if nothing is wrong.
    """

    name: str
    found: str
    fix: str | None = None


def examine(config: Config) -> Iterator[Finding]:
    """Check everything that a run needs: packages, pygame, rendering, devices, memory, disk.

    Args:
        config: The run's config.
    """
    for name, version in versions().items():
        if name == "pygame":  # see `_pygame`: there are two packages of it
            continue
        missing = version == "not installed"
        yield Finding(name, version, f"python3 -m pip install {name}" if missing else None)
    yield _pygame()
    yield _drawing(config)
    try:
        devices = find_devices()
    except ValueError as error:
        devices = []
        yield Finding("devices", "none", str(error))
    for device in devices:
        yield Finding(f"device {device.id}", f"{device.platform}, {device.device_kind}{_memory_of(device)}")
    if devices:
        yield _replay(config)
    free = free_disk_bytes(config.output)
    states = config.keep * _replay_bytes(config) if config.checkpoint_replay else 0
    yield Finding(
        "disk",
        f"{free / _MIB:,.0f} MiB free; {config.keep} states of the default preset take {states / _MIB:,.0f} at most",
        None if free > states else "free some disk space, or use --no-checkpoint-replay",
    )


def _pygame() -> Finding:
    installed = {name: _version(name) for name in ("pygame", "pygame-ce")}
    found = ", ".join(f"{name} {version}" for name, version in installed.items() if version) or "neither"
    fix = None if any(installed.values()) else "python3 -m pip install pygame"
    if all(installed.values()):
        fix = "they overwrite each other: python3 -m pip uninstall -y pygame pygame-ce, then install pygame"
    return Finding("pygame or pygame-ce", found, fix)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _drawing(config: Config) -> Finding:
    try:
        env = make_env_fn(config.env, pixels=True, frame_size=config.frame_size)()
        try:
            frame, _ = env.reset(seed=0)
        finally:
            env.close()
    except Exception as error:  # show the user any error of the environment
        return Finding("a frame", f"{config.env} cannot be drawn", " ".join(str(error).split()))
    return Finding(
        "a frame", f"{config.env} is drawn: {frame.shape[0]}x{frame.shape[1]}, {len(np.unique(frame))} grey levels"
    )


def _memory_of(device: jax.Device) -> str:
    stats = device.memory_stats() if device.platform != "cpu" else None
    if not stats or "bytes_limit" not in stats:
        return ""
    free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return f", {free / _MIB:,.0f} of {stats['bytes_limit'] / _MIB:,.0f} MiB free"


def _replay_bytes(config: Config) -> int:
    return config.planned_capacity * row_bytes((config.frame_size, config.frame_size), np.uint8)


def _replay(config: Config) -> Finding:
    free, needed = free_bytes(), _replay_bytes(config)
    found = f"{free / _MIB:,.0f} MiB free for arrays, {free_host_bytes() / _MIB:,.0f} in the host's memory"
    found += f"; replay of the default preset takes {needed / _MIB:,.0f}"
    return Finding("memory", found, None if needed < free else "lower --capacity, or use --replay-storage disk")
