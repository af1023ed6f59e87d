"""Whether a state on disk is one of the run that is to go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxdqn.config import Config
from jaxdqn.run.files import read_json
from jaxdqn.run.parts import Found
from jaxdqn.run.recorder import versions

FREE = (
    "output",
    "total_frames",
    "num_devices",
    "evaluate_every",
    "evaluation_episodes",
    "max_episode_steps",
    "log_every",
    "checkpoint_every",
    "keep",
    "checkpoint_replay",
    "restart_workers",
)
"""Fields that may be others in `config.json` than when the state was written."""


def check_own(folder: Path, given: Sequence[str]) -> None:
    """Refuse to go on with other things of the user's own than a run was trained with.

    Args:
        folder: The run's.
        given: Names of what is given now.

    Raises:
        ValueError: If they are others.
    """
    path = folder / "versions.json"
    had = read_json(path).get("own", []) if path.is_file() else list(given)
    for name in sorted({*had, *given}):
        if (name in had) != (name in given):
            mend = f"give it that {name} again" if name in had else f"give it no {name}"
            raise ValueError(f"the run was trained with{'' if name in had else 'out'} {name} of your own: {mend}")


def check_found(found: Found, config: Config) -> list[str]:
    """Refuse a state of another config.

    Args:
        found: The state.
        config: What `config.json` says now.

    Returns:
        What may make the run another one than it would have been.

    Raises:
        ValueError: If it is one; the fields are named.
    """
    there, here = found.facts["config"], config.to_dict()
    other = [name for name in here if name not in FREE and name in there and there[name] != here[name]]
    if other:
        words = ", ".join(f"{name} {there[name]!r} and config.json {here[name]!r}" for name in other)
        raise ValueError(f"{found.folder} has {words}: set config.json back")
    was, now = found.facts["versions"], versions()
    changed = [f"{name} {was[name]} and now {now[name]}" for name in now if was.get(name, now[name]) != now[name]]
    notes = [f"the resume may not be bit-exact: {', '.join(changed)}"] if changed else []
    devices = there["num_devices"]
    if devices != config.num_devices:
        notes.append(f"num_devices was {devices} and is {config.num_devices} now: the resume is not bit-exact")
    return notes


def check_total(folder: Path, config: Config, total_frames: int | None, found: Found | None) -> Config:
    """The config with another budget.

    Raises:
        ValueError: If it is spent, and there is nothing left to do, or if it would be lower.
    """
    before = config.total_frames
    if total_frames is not None:
        config = dataclasses.replace(config, total_frames=total_frames)
        if total_frames < before:
            raise ValueError(f"total_frames {total_frames} must not be below the run's {before}")
    frames = _last_frame(folder) if found is None else found.facts["frames"]
    if frames < config.run_frames and (found is not None or frames < before):
        return config
    if found is None:
        raise ValueError(f"the run is complete at frame {frames:,} and holds no state to go on from: train a new one")
    pictures = all((folder / name).is_file() for name in ("curve.png", "agent.gif"))
    if pictures and not found.facts["evaluation_due"]:
        raise ValueError(f"the run is complete at frame {frames:,}: go on with --total-frames above that")
    return config


def _last_frame(folder: Path) -> int:
    """Of the last row of metrics; 0 where there is none."""
    path = folder / "metrics.csv"
    lines = path.read_text().splitlines() if path.is_file() else []
    return max((int(line.split(",")[0]) for line in lines if line.split(",")[0].isdecimal()), default=0)
