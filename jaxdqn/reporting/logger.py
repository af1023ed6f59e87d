"""The logs of a run: config, versions, CSV files, TensorBoard."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxdqn.agent.overrides import RUN_COLUMNS, TIME_COLUMNS
from jaxdqn.checkpoints.run_manifest import LogPosition
from jaxdqn.config import Config
from jaxdqn.envs.vector.episodes import Episode
from jaxdqn.evaluation.evaluator import Evaluation
from jaxdqn.learner import METRICS
from jaxdqn.loops.intervals import passed
from jaxdqn.loops.progress import Progress
from jaxdqn.reporting.tensorboard import EventFile
from jaxdqn.resume_command import relative_path
from jaxdqn.storage.atomic import write_json
from jaxdqn.storage.csv_table import Table
from jaxdqn.versions import versions

EVALUATION_COLUMNS = (
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


def metrics_columns(metric_names: Iterable[str] = METRICS) -> tuple[str, ...]:
    """Return the columns of `metrics.csv` for an agent's metrics."""
    return (*RUN_COLUMNS, *metric_names, *TIME_COLUMNS)


class Logger:
    """Writes the logs of a run; every row is complete on disk before the next one is written."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        started: float,
        *,
        frames: int = 0,
        position: LogPosition | None = None,
        own: Mapping[str, str] | None = None,
        metric_names: Iterable[str] = METRICS,
    ) -> None:
        """Open the logs of a run.

        Args:
            folder: The run's folder, which `claim_folder` has made.
            config: The run's config.
            started: When this process started the run, on the clock of `time.monotonic`.
            frames: Rows that were collected at `position`; logs of later frames are deleted.
            position: What `position` returned in the process before; None in the first process.
            own: The user's own objects in this run (environment, network, ...), and where each is defined.
            metric_names: Names of the agent's metrics.
        """
        position = position or LogPosition()
        self._started = started - position.elapsed_seconds
        self._config = config
        self._episodes = [Episode(*episode) for episode in position.episodes]
        self._num_episodes = position.num_episodes
        write_json(folder / "config.json", dataclasses.replace(config, output=relative_path(folder)).to_dict())
        write_json(folder / "versions.json", {**versions(), "own": dict(own or {})})
        self._metrics = Table(folder / "metrics.csv", metrics_columns(metric_names), until=frames)
        # Not `frames`: an evaluation that was still due at that frame is played after the resume.
        self._evaluated = position.evaluated
        self._evaluations = Table(folder / "evaluations.csv", EVALUATION_COLUMNS, until=self._evaluated)
        self._events = EventFile(folder / "tensorboard", frames=frames)

    def position(self) -> LogPosition:
        """Flush the CSV files, and return what a resumed process needs to continue the logs."""
        self._metrics.flush()
        self._evaluations.flush()
        episodes = tuple(map(tuple, self._episodes))
        return LogPosition(self.elapsed(), self._num_episodes, episodes, self._evaluated)

    def elapsed(self) -> float:
        """Return the seconds since the run started, over all its processes."""
        return time.monotonic() - self._started

    def log(self, progress: Progress, *, force: bool = False) -> None:
        """Write a row of metrics if `log_every` is 0, if a multiple of it was passed, or if `force`.

        Returns and lengths are means over the episodes that ended since the row before; empty if none ended.
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
        """Write a row of evaluations."""
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
