"""The fields of a state's manifest: `States` writes them, and a resume reads them.

Fields that are not known are ignored, so that a later version may add some.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxdqn.envs.vector.episodes import Episode
from jaxdqn.storage.checksums import DamagedError

FORMAT = 2
"""Version of the file layout. States of other versions are refused."""


class LogPosition(NamedTuple):
    """Where the logs of a run stand.

    Attributes:
        elapsed_seconds: Seconds since the run started, over all its processes.
        num_episodes: Episodes that ended so far.
        episodes: Those that ended since the last row of metrics, the fields of an `Episode` each.
        evaluated: Frame of the last evaluation.
    """

    elapsed_seconds: float = 0.0
    num_episodes: int = 0
    episodes: tuple[tuple[Any, ...], ...] = ()
    evaluated: int = 0


@dataclass(frozen=True)
class RunRecord:
    """What the trainer writes into a state's manifest.

    Attributes:
        config: The run's config, as JSON types.
        versions: Versions of the libraries, by name.
        index: Frames of the last and the best agent, as in `index.json`.
        log: Where the logs stand; None if another process writes them.
        evaluation_due: Whether the evaluation of this frame is still to be played.
    """

    config: dict[str, Any]
    versions: dict[str, str]
    index: dict[str, Any]
    log: LogPosition | None
    evaluation_due: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        log = (
            None if self.log is None else {**self.log._asdict(), "episodes": [list(each) for each in self.log.episodes]}
        )
        return {**vars(self), "log": log}


class RunManifest(NamedTuple):
    """All fields of a state's manifest except the list of its files.

    Attributes:
        frames: Rows collected so far, by all environments.
        processes: Processes of the run.
        cursor: Slot of the next row in replay.
        size: Slots of replay in use.
        replay: Whether replay was saved.
        leaves: Name, dtype and shape of each array of the agent's state.
        rest: The same of the arrays of functional environments.
        record: What the trainer wrote.
    """

    frames: int
    processes: int
    cursor: int
    size: int
    replay: bool
    leaves: list[str]
    rest: list[str]
    record: RunRecord

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types, in one level."""
        own = {name: value for name, value in self._asdict().items() if name != "record"}
        return {"format": FORMAT, **own, **self.record.to_dict()}

    @classmethod
    def from_dict(cls, folder: Path, fields: dict[str, Any]) -> RunManifest:
        """Return the inverse of `to_dict`.

        Args:
            folder: Folder of the state, for messages.
            fields: The manifest of a folder whose digests are right.

        Raises:
            DamagedError: If a field is missing or has a value that no run writes.
        """
        _check_types(folder, fields, _TYPES)
        log = fields["log"]
        if log is not None:
            _check_types(folder, log, _LOG_TYPES)
            for episode in log["episodes"]:
                _check(folder, "episodes", log["episodes"], isinstance(episode, list) and len(episode) == _EPISODE)
            episodes = tuple(map(tuple, log["episodes"]))
            log = LogPosition(**{name: log[name] for name in LogPosition._fields})._replace(episodes=episodes)
        for name in ("last", "best"):
            frame = fields["index"].get(name, 0)
            _check(folder, name, frame, type(frame) is int and frame >= 0)
        record = RunRecord(log=log, **{name: fields[name] for name in _RECORD if name != "log"})
        return cls(**{name: fields[name] for name in cls._fields if name != "record"}, record=record)


_TYPES: dict[str, Any] = {
    **{"frames": int, "processes": int, "cursor": int, "size": int, "replay": bool, "leaves": list, "rest": list},
    **{"config": dict, "versions": dict, "index": dict, "log": dict | None, "evaluation_due": bool},
}
_LOG_TYPES: dict[str, Any] = {"elapsed_seconds": int | float, "num_episodes": int, "episodes": list, "evaluated": int}
_RECORD = [field.name for field in dataclasses.fields(RunRecord)]
_EPISODE = len(Episode._fields)


def _check_types(folder: Path, fields: dict[str, Any], types: dict[str, Any]) -> None:
    for name, expected in types.items():
        value = fields.get(name)
        if expected is int:  # and no bool, which is one
            right = type(value) is int and value >= (1 if name == "processes" else 0)
        else:
            right = name in fields and isinstance(value, expected)
        _check(folder, name, value, right)


def _check(folder: Path, name: str, value: Any, is_right: bool) -> None:
    if not is_right:
        raise DamagedError(f"{folder} has {name} {value!r}, which no run writes: it is damaged")
