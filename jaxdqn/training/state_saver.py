"""When the state of a run is saved, and what is reported if that fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxdqn.checkpoints.run_manifest import RunRecord
from jaxdqn.checkpoints.run_state import States
from jaxdqn.frame_store import FrameStore
from jaxdqn.loops.finite import check_state_finite
from jaxdqn.loops.intervals import checkpoints_at, evaluates_at
from jaxdqn.loops.progress import Progress
from jaxdqn.storage.checksums import DamagedError, amend
from jaxdqn.training.artifacts import RunArtifacts
from jaxdqn.training.context import RunContext
from jaxdqn.training.start_loop import TrainingLoop
from jaxdqn.versions import versions


class StateSaver:
    """Saves the states of a run."""

    def __init__(
        self,
        context: RunContext,
        states: States,
        training_loop: TrainingLoop,
        artifacts: RunArtifacts | None,
        store: FrameStore | None,
    ) -> None:
        self._versions = versions()
        self._states, self._training_loop, self._artifacts, self._store = states, training_loop, artifacts, store
        self._config, self._say, self._group = context.config, context.control.say_once, context.control.group
        self._saved: dict[int, Path] = {}  # the newest state, by its frame
        self._last_attempt = time.monotonic()

    def save_on_exit(self, progress: Progress, rest: Iterator[Progress]) -> None:
        """Save the state at which the user has left the loop, unless it is on disk already.

        Args:
            progress: Progress of the last batch that was yielded.
            rest: The rest of the loop. Batches that the device has already trained, up to the end of the chunk, are
                logged and become part of the state.
        """
        if self._group.count > 1:
            if progress.frames not in self._saved:
                self._say(f"frame {progress.frames:,} is not saved, as only one process left the loop: call stop()")
            return
        evaluation_due = False
        while progress.state is None:
            progress = next(rest)
            if self._artifacts is not None:
                self._artifacts.log(progress)
            evaluation_due = evaluates_at(self._config, progress.frames)
        if progress.frames in self._saved:
            self.save_agent(progress, self._saved[progress.frames])
            return
        try:
            check_state_finite(progress.state, progress.frames)
        except FloatingPointError as error:
            self._say(f"no checkpoint of frame {progress.frames:,}: {error}")
            return
        self.save(progress, evaluation_due=evaluation_due, save_agent=True)

    def is_due(self, progress: Progress) -> bool:
        """Return whether a checkpoint is due, by frames or by time; the same on all processes."""
        if checkpoints_at(self._config, progress.frames):
            return True
        seconds = self._config.checkpoint_seconds
        return seconds > 0 and bool(
            self._group.broadcast_from_first(lambda: time.monotonic() - self._last_attempt >= seconds)
        )

    def save(self, progress: Progress, *, evaluation_due: bool, save_agent: bool = False) -> Path | None:
        """Save the current state and return its folder.

        If that fails, report it and return None: the run continues, and the previous state stays on disk.

        Args:
            progress: Progress after a batch, with the agent's state.
            evaluation_due: Whether a resume must evaluate the agent of this state.
            save_agent: Whether to save the agent as the last agent as well.
        """
        assert progress.state is not None  # loops yield it whenever the config asks for a checkpoint
        self._group.check_identical(progress.state.learner)
        try:
            with self._group.exchange():
                if save_agent and self._artifacts is not None:
                    self._artifacts.save_last_agent(progress)
                rest, envs = self._training_loop.snapshot(progress)
                record = self._record(evaluation_due)
            read_obs = None if self._store is None else self._store.read
            options: dict[str, Any] = {"rest": rest, "envs": envs, "read_obs": read_obs}
            folder = self._states.save(progress.frames, progress.state, record, **options)
            self._saved = {progress.frames: folder}
            return folder
        except OSError as error:
            states = self._states.all()
            last = f"the last one is {states[-1]}" if states else "there is none yet"
            self._say(f"no checkpoint of frame {progress.frames:,}: {error}; {last}")
            return None
        finally:
            self._last_attempt = time.monotonic()

    def save_agent(self, progress: Progress, folder: Path) -> None:
        """Save the agent of a state that is on disk already as the last agent."""
        with self._report_failure(f"the agent of frame {progress.frames:,} is not saved"):
            if self._artifacts is not None:
                self._artifacts.save_last_agent(progress)
                amend(folder, self._logged())

    def _record(self, evaluation_due: bool) -> RunRecord:
        """Return what a state of this moment says; the first process alone has logs and agents."""
        artifacts = self._artifacts
        index, log = ({}, None) if artifacts is None else (artifacts.index(), artifacts.log_position())
        return RunRecord(self._config.to_dict(), self._versions, index, log, evaluation_due)

    def _logged(self) -> dict[str, Any]:
        """Return the fields of a state's manifest that change after it was written."""
        record = self._record(evaluation_due=False).to_dict()
        return {name: record[name] for name in ("index", "log")}

    def mark_evaluated(self, folder: Path, frames: int) -> None:
        """Record in the manifest of a state that its evaluation is done; if that fails, a resume evaluates again."""
        with self._report_failure(f"{folder} does not record that frame {frames:,} was evaluated"):
            if self._artifacts is not None:
                amend(folder, {**self._logged(), "evaluation_due": False})

    @contextlib.contextmanager
    def _report_failure(self, what: str) -> Iterator[None]:
        """Run a block on all processes, and report errors of the disk without stopping the run."""
        try:
            with self._group.exchange():
                yield
        except (OSError, DamagedError) as error:
            self._say(f"{what}: {error}")
