"""Whether a state on disk is one of the run that is to go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdqn.checkpoints.compatibility import with_new_names
from jaxdqn.checkpoints.shards import SavedState
from jaxdqn.config import Config
from jaxdqn.envs.vector.episodes import Episode
from jaxdqn.evaluation.trained_agent import check_no_import
from jaxdqn.storage.atomic import read_json
from jaxdqn.training.context import Overrides
from jaxdqn.versions import versions

FREE = (
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
"""Fields that may be others in `config.json` than when the state was written."""


def check_overrides(folder: Path, given: Mapping[str, str]) -> list[str]:
    """Refuse to go on without what of a user's own a run was trained with, or with more.

    Args:
        folder: The run's.
        given: What is given now, and where it is defined.

    Returns:
        What is defined elsewhere than it was.

    Raises:
        ValueError: If something is missing, or was not there.
    """
    path = folder / "versions.json"
    had = read_json(path).get("own", {}) if path.is_file() else dict(given)
    if isinstance(had, list) and all(isinstance(name, str) for name in had):
        had = dict.fromkeys(had, "")  # older runs kept the names alone
    if not isinstance(had, dict) or not all(isinstance(what, str) for what in had.values()):
        raise ValueError(f"{path}: own {had!r} does not name what was the user's own: it is damaged")
    for name in sorted({*had, *given}):
        if name not in had:
            raise ValueError(f"the run was trained without {name} of your own: give it no {name}")
        if name not in given:
            which = f", {had[name]}" if had[name] else ""
            raise ValueError(f"the run was trained with {name} of your own{which}: give it that {name} again")
    others = [name for name in had if had[name] and _without_module(had[name]) != _without_module(given[name])]
    return [f"{name} was {had[name]} and is {given[name]} now: the run may become another one" for name in others]


def _without_module(path: str) -> str:
    """A dotted path; of this package the last name alone, as its modules move from one version to the next."""
    return f"jaxdqn.{path.rsplit('.', 1)[-1]}" if path.startswith("jaxdqn.") else path


def check_envs(config: Config, overrides: Overrides, env: str | None, eval_env: str | None) -> None:
    """Refuse other environments than a run's, and such of `config.json` that import what nobody has named.

    Args:
        config: What `config.json` says.
        overrides: What of the run is the user's own.
        env: What the user names.
        eval_env: The same.

    Raises:
        ValueError: If they are others, or an id imports a module.
    """
    for field, named, own in (("env", env, overrides.env_fn), ("eval_env", eval_env, overrides.eval_env_fn)):
        there = getattr(config, field)
        if named is not None and named != there:
            raise ValueError(f"{field} {named!r} is not the run's, which is {there!r}: name that, or leave it out")
        if named is None and there is not None and own is None:
            check_no_import(there, f"--{field.replace('_', '-')}")


def check_saved_state(saved: SavedState, config: Config) -> list[str]:
    """Refuse a state of another config.

    Args:
        saved: The state.
        config: What `config.json` says now.

    Returns:
        What may make the run another one than it would have been.

    Raises:
        ValueError: If it is one; the fields are named.
    """
    _check_types(saved)
    there, here = with_new_names(saved.facts["config"]), config.to_dict()
    other = [name for name in here if name not in FREE and name in there and there[name] != here[name]]
    if other:
        words = ", ".join(f"{name} {there[name]!r} and config.json {here[name]!r}" for name in other)
        raise ValueError(f"{saved.folder} has {words}: set config.json back")
    was, now = saved.facts["versions"], versions()
    changed = [f"{name} {was[name]} and now {now[name]}" for name in now if was.get(name, now[name]) != now[name]]
    notes = [f"the resume may not be bit-exact: {', '.join(changed)}"] if changed else []
    devices = there["num_devices"]
    if devices != config.num_devices:
        notes.append(f"num_devices was {devices} and is {config.num_devices} now: the resume is not bit-exact")
    return notes


_KINDS: dict[str, Any] = {"config": dict, "versions": dict, "index": dict, "evaluation_due": bool}
_LOG_KINDS: dict[str, Any] = {"elapsed_seconds": int | float, "num_episodes": int, "episodes": list, "evaluated": int}


def _check_types(saved: SavedState) -> None:
    """Refuse a manifest that is whole, and says what no run has written: it is a stranger's."""
    facts = saved.facts
    log = facts.get("log")
    tables = [(facts, _KINDS), (facts, {"log": dict | None})]
    tables += [(log, _LOG_KINDS)] if isinstance(log, dict) else []
    for exchange, kinds in tables:
        for name, kind in kinds.items():
            if name not in exchange or not isinstance(exchange[name], kind):
                raise ValueError(
                    f"{saved.folder} says {name} {exchange.get(name)!r}, which no run has written: it is damaged"
                )
    episodes = [] if log is None else log["episodes"]
    if not all(isinstance(each, list) and len(each) == len(Episode._fields) for each in episodes):
        raise ValueError(f"{saved.folder} says episodes {episodes}, which no run has written: it is damaged")
    numbers = {name: facts["index"].get(name, 0) for name in ("last", "best")}
    for name, number in {**numbers, "num_devices": facts["config"].get("num_devices")}.items():
        if type(number) is not int or number < 0:
            raise ValueError(f"{saved.folder} says {name} {number!r}, which no run has written: it is damaged")


def check_total(folder: Path, config: Config, total_frames: int | None, saved: SavedState | None) -> Config:
    """The config with another budget.

    Raises:
        ValueError: If it is spent, and there is nothing left to do, or if it would be lower.
    """
    before = config.total_frames
    if total_frames is not None:
        config = dataclasses.replace(config, total_frames=total_frames)
        if total_frames < before:
            raise ValueError(f"total_frames {total_frames} must not be below the run's {before}")
    frames = _last_frame(folder) if saved is None else saved.facts["frames"]
    if frames < config.run_frames and (saved is not None or frames < before):
        return config
    if saved is None:
        raise ValueError(f"the run is complete at frame {frames:,} and holds no state to go on from: train a new one")
    pictures = all((folder / name).is_file() for name in ("curve.png", "agent.gif"))
    if pictures and not saved.facts["evaluation_due"]:
        raise ValueError(f"the run is complete at frame {frames:,}: go on with --total-frames above that")
    return config


def _last_frame(folder: Path) -> int:
    """Of the last row of metrics; 0 where there is none."""
    path = folder / "metrics.csv"
    lines = path.read_text().splitlines() if path.is_file() else []
    return max((int(line.split(",")[0]) for line in lines if line.split(",")[0].isdecimal()), default=0)
