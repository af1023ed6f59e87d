"""A run's folder and its logs: config, versions, CSV files, TensorBoard."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from jaxdqn.config import Config
from jaxdqn.envs.vector import Episode
from jaxdqn.run.evaluation import Evaluation
from jaxdqn.run.files import write_json
from jaxdqn.run.progress import Progress, passed

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
EVALUATIONS = ("frames", "episodes", "mean", "median", "standard_error", "min", "max", "lengths", "elapsed_seconds")
PACKAGES = ("jaxdqn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "gymnasium", "numpy", "pillow", "pygame")


class Recorder:
    """Writes what a run leaves; every row is whole on disk before the next is begun."""

    def __init__(self, folder: Path, config: Config, started: float) -> None:
        """Open the logs of a run.

        Args:
            folder: The run's folder, which `claim_folder` has made.
            config: The run.
            started: When it began, on the clock of `time.monotonic`.
        """
        self._started = started
        self._config = config
        self._episodes: list[Episode] = []
        self._num_episodes = 0
        write_json(folder / "config.json", dataclasses.replace(config, output=str(folder)).to_dict())
        write_json(folder / "versions.json", versions())
        self._metrics = _Table(folder / "metrics.csv", METRICS)
        self._evaluations = _Table(folder / "evaluations.csv", EVALUATIONS)
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"))

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
        self._scalars("train", row, progress.frames)

    def log_evaluation(self, frames: int, evaluation: Evaluation) -> None:
        """A row of evaluations."""
        row = evaluation._asdict()
        del row["returns"]
        row["lengths"] = " ".join(map(str, evaluation.lengths))
        row["elapsed_seconds"] = round(self.elapsed(), 3)
        self._evaluations.write({"frames": frames, **row})
        self._scalars("evaluation", row, frames)
        self._tensorboard.flush()

    def _scalars(self, group: str, row: dict[str, Any], frames: int) -> None:
        for name, value in row.items():
            if name != "frames" and isinstance(value, int | float):
                self._tensorboard.add_scalar(f"{group}/{name}", value, frames)

    def close(self) -> None:
        """Flush and close the files."""
        self._metrics.close()
        self._evaluations.close()
        self._tensorboard.close()


class _Table:
    """A CSV file that can be read while it grows."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._file = path.open("w", newline="", buffering=1)  # a line at a time
        self._writer = csv.DictWriter(self._file, columns, lineterminator="\n")
        self._writer.writeheader()

    def write(self, row: dict[str, Any]) -> None:
        self._writer.writerow(row)

    def close(self) -> None:
        self._file.close()


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.fmean(found) if found else None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run's numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def check_output(config: Config) -> None:
    """Refuse an `output` that cannot hold a new run, before any work is done for it.

    Raises:
        ValueError: If it is a file, holds something already, or cannot be written.
    """
    if config.output is None:
        return
    folder = Path(config.output)
    if folder.is_dir() and any(folder.iterdir()):
        what = "already holds a run" if (folder / "config.json").exists() else "is not empty"
        raise ValueError(f"output {str(folder)!r} {what}: choose another folder, or delete it")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output {str(folder)!r} is a file: choose a folder")
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        raise ValueError(f"output {str(folder)!r} cannot be made: {str(parent)!r} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"output {str(folder)!r} cannot be made: {str(parent)!r} is not writable")


def claim_folder(config: Config, name: str) -> Path:
    """Make the folder of a run, and take it so that no other run can.

    Args:
        config: The run; an `output` of its own is taken as it is.
        name: Name under `runs/` otherwise, with a number behind it where it is taken.

    Raises:
        ValueError: If the folder cannot be made, or another run was quicker.
    """
    if config.output is not None:
        folders = [Path(config.output)]
    else:
        folders = [Path("runs") / (name if index == 1 else f"{name}-{index}") for index in range(1, 10_000)]
    for folder in folders:
        if config.output is None and folder.exists():
            continue
        try:
            folder.mkdir(parents=True, exist_ok=config.output is not None)
            (folder / "config.json").touch(exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise ValueError(f"output {str(folder)!r} cannot be made: {error.strerror}") from error
        return folder
    raise ValueError(f"output {str(folders[-1])!r} is taken by another run: choose another folder")


def release_folder(folder: Path) -> None:
    """Undo `claim_folder`, for a run that cannot begin after all; other files that are there stay."""
    (folder / "config.json").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: it was there before
        folder.rmdir()
