"""When the state of a run is written, and what is said where it cannot be."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxdqn.checkpoints.run_state import States
from jaxdqn.frame_store import FrameStore
from jaxdqn.loops.finite import check_state_finite
from jaxdqn.loops.progress import Progress, evaluates_at, keeps_at
from jaxdqn.storage.manifest import DamagedError, amend
from jaxdqn.training.artifacts import RunArtifacts
from jaxdqn.training.context import RunContext
from jaxdqn.training.loop import TrainingLoop
from jaxdqn.training.setup import RunSetup
from jaxdqn.versions import versions


class StateSaver:
    """Writes the states of a run."""

    def __init__(
        self,
        context: RunContext,
        setup: RunSetup,
        states: States,
        training_loop: TrainingLoop,
        artifacts: RunArtifacts | None,
        store: FrameStore | None,
    ) -> None:
        self._facts = {"config": context.config.to_dict(), "versions": versions(), "spec": setup.spec.to_dict()}
        self._states, self._stepping, self._clerk, self._store = states, training_loop, artifacts, store
        self._config, self._say, self._group = context.config, context.say_once, context.group
        self._kept: dict[int, Path] = {}  # the newest state, by its frame
        self._last_try = time.monotonic()

    def leave(self, progress: Progress, rest: Iterator[Progress]) -> None:
        """Write the state where the loop has been left, unless it is on disk already.

        Args:
            progress: Of the last batch that was shown.
            rest: The loop: batches that are trained already, of a chunk on the device, are logged, and belong to it.
        """
        if self._group.count > 1:
            if progress.frames not in self._kept:
                self._say(f"frame {progress.frames:,} was left by one process alone, and is not kept: call stop()")
            return
        due = False
        while progress.state is None:
            progress = next(rest)
            if self._clerk is not None:
                self._clerk.log(progress)
            due = evaluates_at(self._config, progress.frames)
        if progress.frames in self._kept:
            self.save_agent(progress, self._kept[progress.frames])
            return
        try:
            check_state_finite(progress.state, progress.frames)
        except FloatingPointError as error:
            self._say(f"no checkpoint of frame {progress.frames:,}: {error}")
            return
        self.keep(progress, evaluation_due=due, leaving=True)

    def due(self, progress: Progress) -> bool:
        """Whether the state of this moment is to be written, by frames or by time; the same on all processes."""
        if keeps_at(self._config, progress.frames):
            return True
        seconds = self._config.checkpoint_seconds
        return seconds > 0 and bool(
            self._group.broadcast_from_first(lambda: time.monotonic() - self._last_try >= seconds)
        )

    def keep(self, progress: Progress, *, evaluation_due: bool, leaving: bool = False) -> Path | None:
        """Write the state of this moment; where that fails the run goes on, the last one stays, and None is given.

        With `leaving` the agent is kept as the last one, too.
        """
        assert progress.state is not None  # loops give it where the config asks for a checkpoint
        self._group.check_identical(progress.state.learner)
        try:
            with self._group.exchange():
                if leaving and self._clerk is not None:
                    self._clerk.keep_last(progress)
                rest, envs = self._stepping.snapshot(progress)
                logged = self._clerk.facts() if self._clerk is not None else {}
            facts = {**self._facts, "evaluation_due": evaluation_due, **logged}
            read_obs = None if self._store is None else self._store.read
            how: dict[str, Any] = {"rest": rest, "envs": envs, "read_obs": read_obs}
            kept = self._states.save(progress.frames, progress.state, facts, **how)
            self._kept = {progress.frames: kept}
            return kept
        except OSError as error:
            there = self._states.all()
            last = f"the last one is {there[-1]}" if there else "there is none yet"
            self._say(f"no checkpoint of frame {progress.frames:,}: {error}; {last}")
            return None
        finally:
            self._last_try = time.monotonic()

    def save_agent(self, progress: Progress, folder: Path) -> None:
        """Keep the agent of a state that is on disk already as the last one."""
        with self._report_failure(f"the agent of frame {progress.frames:,} is not kept"):
            if self._clerk is not None:
                self._clerk.keep_last(progress)
                amend(folder, self._clerk.facts())

    def mark_evaluated(self, folder: Path, frames: int) -> None:
        """Say in the manifest of a state that its evaluation is done; where that fails, a resume does it again."""
        with self._report_failure(f"{folder} does not say that frame {frames:,} was evaluated"):
            if self._clerk is not None:
                amend(folder, {"evaluation_due": False, **self._clerk.facts()})

    @contextlib.contextmanager
    def _report_failure(self, what: str) -> Iterator[None]:
        """A block of all processes in which a disk that fails ends nothing."""
        try:
            with self._group.exchange():
                yield
        except (OSError, DamagedError) as error:
            self._say(f"{what}: {error}")
