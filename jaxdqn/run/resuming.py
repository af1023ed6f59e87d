"""Whether a state on disk is one of the run that is to go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jaxdqn.config import Config
from jaxdqn.run.states import Found

FREE = (
    "output",
    "total_frames",
    "evaluate_every",
    "evaluation_episodes",
    "log_every",
    "checkpoint_every",
    "keep",
    "checkpoint_replay",
    "restart_workers",
)
"""Fields that may be others in `config.json` than when the state was written."""


def check_found(found: Found, config: Config, custom: Sequence[str]) -> None:
    """Refuse a state of another config.

    Args:
        found: The state.
        config: What `config.json` says now.
        custom: What the user has given of `env_fn` and `network`.

    Raises:
        ValueError: If it is one; the fields are named.
    """
    there, here = found.facts["config"], config.to_dict()
    other = [name for name in here if name not in FREE and name in there and there[name] != here[name]]
    if other:
        words = ", ".join(f"{name} {there[name]!r} and config.json {here[name]!r}" for name in other)
        raise ValueError(f"{found.folder} has {words}: set config.json back")
    for name in ("env_fn", "network"):
        was, given = name in found.facts["spec"]["custom"], name in custom
        if was != given:
            mend = f"give it that {name} again" if was else f"give it no {name}"
            raise ValueError(f"the run was trained with{'' if was else 'out'} {name} of your own: {mend}")


def check_total(config: Config, total_frames: int | None, found: Found | None) -> Config:
    """The config with another budget.

    Raises:
        ValueError: If it is spent.
    """
    if total_frames is not None:
        config = dataclasses.replace(config, total_frames=total_frames)
    frames = 0 if found is None else found.facts["frames"]
    if frames >= config.num_batches * config.frames_per_batch and not (found and found.facts["evaluation_due"]):
        raise ValueError(f"the run is complete at frame {frames:,}: go on with --total-frames above that")
    return config
