"""A run's folder and its logs: config, versions, CSV files, TensorBoard."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxdqn.config import Config
from jaxdqn.envs.vector.episodes import Episode
from jaxdqn.evaluation.evaluator import Evaluation
from jaxdqn.loops.progress import Progress, passed
from jaxdqn.reporting.tensorboard import EventFile
from jaxdqn.resume_command import relative_path
from jaxdqn.storage.atomic import write_json
from jaxdqn.storage.csv_table import Table
from jaxdqn.versions import versions

METRICS = (
    "frames",
    "updates",
    "episodes",
    "return_mean",
    "length_mean",
    "epsilon",
    "loss",
    "gradient_norm",
    "q_value",
    "elapsed_seconds",
    "frames_per_second",
)
EVALUATIONS = (
    "frames",
    "episodes",
    "screening_mean",
    "screening_standard_error",
    "mean",
    "median",
    "standard_error",
    "min",
    "max",
    "cut",
    "lengths",
    "elapsed_seconds",
)


class Logger:
    """Writes what a run leaves; every row is whole on disk before the next is begun."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        started: float,
        *,
        frames: int = 0,
        facts: dict[str, Any] | None = None,
        own: Mapping[str, str] | None = None,
    ) -> None:
        """Open the logs of a run.

        Args:
            folder: The run's folder, which `claim_folder` has made.
            config: The run.
            started: When this process began with it, on the clock of `time.monotonic`.
            frames: Rows that were collected when `facts` was taken; what was written of later ones is deleted.
            facts: What `facts` gave in the process before; None where there was none.
            own: What is the user's own in this run, and where it is defined.
        """
        before = facts or {"elapsed_seconds": 0.0, "num_episodes": 0, "episodes": [], "evaluated": 0}
        self._started = started - before["elapsed_seconds"]
        self._config = config
        self._episodes = [Episode(*episode) for episode in before["episodes"]]
        self._num_episodes = int(before["num_episodes"])
        write_json(folder / "config.json", dataclasses.replace(config, output=relative_path(folder)).to_dict())
        write_json(folder / "versions.json", {**versions(), "own": dict(own or {})})
        self._metrics = Table(folder / "metrics.csv", METRICS, until=frames)
        # An evaluation that was due is not among them, though it is of the same frame.
        self._evaluated = int(before["evaluated"])
        self._evaluations = Table(folder / "evaluations.csv", EVALUATIONS, until=self._evaluated)
        self._events = EventFile(folder / "tensorboard", frames=frames)

    def facts(self) -> dict[str, Any]:
        """What the logs had got to, for the process that goes on, as JSON takes it; what was written is on disk."""
        self._metrics.flush()
        self._evaluations.flush()
        return {
            "elapsed_seconds": self.elapsed(),
            "num_episodes": self._num_episodes,
            "episodes": [list(episode) for episode in self._episodes],
            "evaluated": self._evaluated,
        }

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    def log(self, progress: Progress, *, force: bool = False) -> None:
        """A row of metrics, where `log_every` is 0, a multiple of it was passed, or `force`.

        Returns and lengths are means over the episodes that ended since the row before; empty where none did.
        """
        self._episodes += progress.episodes
        self._num_episodes += len(progress.episodes)
        every = self._config.log_every
        if every and not force and not passed(every, progress.frames, self._config.frames_per_batch):
            return
        seconds = self.elapsed()
        row: dict[str, Any] = {
            "frames": progress.frames,
            "updates": progress.updates,
            "episodes": self._num_episodes,
            "return_mean": _mean(episode.raw_return for episode in self._episodes),
            "length_mean": _mean(episode.length for episode in self._episodes),
            "epsilon": progress.epsilon,
            **progress.metrics,
            "elapsed_seconds": round(seconds, 3),
            "frames_per_second": round(progress.frames / max(seconds, 1e-9), 2),
        }
        self._episodes = []
        self._metrics.write(row)
        self._events.scalars("train", row, progress.frames)

    def log_evaluation(self, frames: int, evaluation: Evaluation) -> None:
        """A row of evaluations."""
        row = evaluation._asdict()
        del row["returns"]
        row["lengths"] = " ".join(map(str, evaluation.lengths))
        row["elapsed_seconds"] = round(self.elapsed(), 3)
        self._evaluations.write({"frames": frames, **row})
        self._evaluated = frames
        self._events.scalars("evaluation", row, frames)
        self._events.flush()

    def close(self) -> None:
        """Flush and close the files."""
        self._metrics.close()
        self._evaluations.close()
        self._events.close()


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.fmean(found) if found else None
