"""Checks that a run can be resumed: its state, config and overrides must fit together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from jaxdqn.checkpoints.compatibility import with_new_names
from jaxdqn.checkpoints.process_parts import SavedState
from jaxdqn.config import Config
from jaxdqn.evaluation.trained_agent import check_no_import
from jaxdqn.storage.atomic import read_json
from jaxdqn.training.context import Overrides
from jaxdqn.versions import versions

CHANGEABLE_FIELDS = (
    "output",
    "total_frames",
    "num_devices",
    "evaluate_every",
    "evaluation_episodes",
    "max_episode_steps",
    "log_every",
    "checkpoint_every",
    "checkpoint_seconds",
    "stop_seconds",
    "keep",
    "checkpoint_replay",
    "restart_workers",
)
"""Fields of `config.json` that may have changed since the state was written."""


def check_overrides(folder: Path, given: Mapping[str, str]) -> list[str]:
    """Check that a run is resumed with the overrides that it was trained with, and no others.

    Args:
        folder: The run's folder.
        given: Where each override that is passed now is defined, by its name.

    Returns:
        A line for each override that is defined elsewhere than before.

    Raises:
        ValueError: If an override is missing, or the run was trained without it.
    """
    path = folder / "versions.json"
    before = read_json(path).get("own", {}) if path.is_file() else dict(given)
    if isinstance(before, list) and all(isinstance(name, str) for name in before):
        before = dict.fromkeys(before, "")  # older runs saved only the names
    if not isinstance(before, dict) or not all(isinstance(what, str) for what in before.values()):
        raise ValueError(f"{path} has own {before!r}, which no run writes: it is damaged")
    for name in sorted({*before, *given}):
        if name not in before:
            raise ValueError(f"the run was trained without your own {name}: do not pass {name}")
        if name not in given:
            which = f", {before[name]}" if before[name] else ""
            raise ValueError(f"the run was trained with your own {name}{which}: pass that {name} again")
    moved = [name for name in before if before[name] and _without_module(before[name]) != _without_module(given[name])]
    return [f"{name} was {before[name]} and is {given[name]} now: the results may differ" for name in moved]


def _without_module(path: str) -> str:
    """Return a dotted path, without the module if it is in this package, as modules move between versions.

    An inner function keeps the name of the function that made it: all objectives end in `.<locals>.objective`.
    """
    if not path.startswith("jaxdqn."):
        return path
    outer, inner, name = path.partition(".<locals>.")
    return f"jaxdqn.{outer.rsplit('.', 1)[-1]}{inner}{name}"


def check_envs(config: Config, overrides: Overrides, env: str | None, eval_env: str | None) -> None:
    """Check that the environments are those of the run, and that the user has named each id that imports a module.

    Args:
        config: The config in `config.json`.
        overrides: The user's overrides.
        env: The id of the environment that the user names; None for none.
        eval_env: The same for the environment of evaluations.

    Raises:
        ValueError: If an environment differs from the run's, or an id that nobody has named imports a module.
    """
    for field, named, own in (("env", env, overrides.env_fn), ("eval_env", eval_env, overrides.eval_env_fn)):
        saved = getattr(config, field)
        if named is not None and named != saved:
            raise ValueError(f"{field} {named!r} is not the run's, which is {saved!r}: name that one, or none")
        if named is None and saved is not None and own is None:
            check_no_import(saved, f"--{field.replace('_', '-')}")


def check_saved_state(saved: SavedState, config: Config) -> list[str]:
    """Check that a state was written with the config of the run.

    Args:
        saved: The state.
        config: The config in `config.json` now.

    Returns:
        A line for each difference that may change the run.

    Raises:
        ValueError: If the configs differ; the message names the fields.
    """
    record = saved.manifest.record
    before, now = with_new_names(record.config), config.to_dict()
    fixed = [name for name in now if name not in CHANGEABLE_FIELDS and name in before]
    changed = [f"{name} {before[name]!r} and config.json {now[name]!r}" for name in fixed if before[name] != now[name]]
    if changed:
        raise ValueError(f"{saved.folder} has {', '.join(changed)}: restore config.json")
    was, here = record.versions, versions()
    updated = [f"{name} {was[name]} and now {here[name]}" for name in here if was.get(name, here[name]) != here[name]]
    notes = [f"the resume may not be bit-exact: {', '.join(updated)}"] if updated else []
    devices = before.get("num_devices")
    if type(devices) is not int or devices < 1:
        raise ValueError(f"{saved.folder} has num_devices {devices!r}, which no run writes: it is damaged")
    if devices != config.num_devices:
        notes.append(f"num_devices was {devices} and is {config.num_devices} now: the resume is not bit-exact")
    return notes


def check_total(folder: Path, config: Config, total_frames: int | None, saved: SavedState | None) -> Config:
    """Return the config with another budget.

    Raises:
        ValueError: If the budget would be lower than before, or it is spent and there is nothing left to do.
    """
    before = config.total_frames
    if total_frames is not None:
        config = dataclasses.replace(config, total_frames=total_frames)
        if total_frames < before:
            raise ValueError(f"total_frames {total_frames} must not be below the run's {before}")
    frames = _last_frame(folder) if saved is None else saved.manifest.frames
    if frames < config.run_frames and (saved is not None or frames < before):
        return config
    if saved is None:
        raise ValueError(f"the run is complete at frame {frames:,} and has no state to resume from: train a new one")
    pictures = all((folder / name).is_file() for name in ("curve.png", "agent.gif"))
    if pictures and not saved.manifest.record.evaluation_due:
        raise ValueError(f"the run is complete at frame {frames:,}: resume with --total-frames above that")
    return config


def _last_frame(folder: Path) -> int:
    """Return the frame of the last row of metrics; 0 if there is none."""
    path = folder / "metrics.csv"
    lines = path.read_text().splitlines() if path.is_file() else []
    return max((int(line.split(",")[0]) for line in lines if line.split(",")[0].isdecimal()), default=0)
