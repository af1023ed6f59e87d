"""The trainer: run the training loop, and write logs, evaluations, states and pictures between its batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdqn.agent.agent import Agent
from jaxdqn.checkpoints.agent_files import AgentSpec
from jaxdqn.checkpoints.run_state import States
from jaxdqn.config import Config
from jaxdqn.distributed.process_group import ProcessGroup
from jaxdqn.evaluation.evaluator import Evaluation, Evaluator
from jaxdqn.frame_store import FrameStore, with_frame_store
from jaxdqn.loops.finite import check_state_finite
from jaxdqn.loops.intervals import evaluates_at
from jaxdqn.loops.progress import Progress
from jaxdqn.signals import Stop
from jaxdqn.training.artifacts import RunArtifacts
from jaxdqn.training.context import RunContext
from jaxdqn.training.run_dir import check_visible, release_on_failure
from jaxdqn.training.setup import RunSetup
from jaxdqn.training.start_loop import TrainingLoop, open_loop
from jaxdqn.training.state_saver import StateSaver


class RunProgress(NamedTuple):
    """What `train` and `resume` yield after each batch.

    Attributes:
        progress: The loop's own progress.
        evaluation: The evaluation after this batch; None after most batches, and on all processes but the first.
        folder: The run's folder.
    """

    progress: Progress
    evaluation: Evaluation | None
    folder: Path


def _make_store(folder: Path, config: Config, spec: AgentSpec) -> FrameStore:
    """Make the store of a run's frames, in the host's memory or in a file in the run's folder."""
    path = folder / "replay.npy" if config.replay_storage == "disk" else None
    if path is not None:
        path.unlink(missing_ok=True)  # left by a process that was killed before it unlinked the open file
    return FrameStore(
        capacity=config.planned_capacity,
        num_envs=config.num_envs,
        obs_shape=spec.obs.shape,
        obs_dtype=np.dtype(spec.obs.dtype),
        path=path,
    )


def open_states(folder: Path, config: Config, group: ProcessGroup) -> States:
    """Return the states of a run."""
    return States(folder / "states", keep=config.keep, with_replay=config.checkpoint_replay, group=group)


class OpenRun(NamedTuple):
    """A run whose folder, environments and logs are open.

    Attributes:
        folder: The run's folder.
        agent: The agent; its frames are in the run's store, if the config asks for one.
        training_loop: The loop, at the first batch or at that of the state on disk.
        artifacts: Writes logs, evaluations, agents and pictures; None on all processes but the first.
        saver: Saves states.
    """

    folder: Path
    agent: Agent
    training_loop: TrainingLoop
    artifacts: RunArtifacts | None
    saver: StateSaver


def run_training(
    context: RunContext, setup: RunSetup, claim: Callable[[], Path], *, new: bool
) -> Generator[RunProgress, None, None]:
    """Train from scratch, or from a saved state, to the end of the budget.

    Args:
        context: The run.
        setup: The agent.
        claim: Returns the run's folder, and may create it; called on the first process only.
        new: Whether the folder is new, and must be released if the run cannot begin.
    """
    context.control.stop.grace_seconds = context.config.stop_seconds
    with contextlib.ExitStack() as final_cleanup, contextlib.ExitStack() as cleanup:
        opened = _open_run(context, setup, claim, cleanup, final_cleanup, new=new)
        yield from Trainer(context, opened).steps()


def _open_run(
    context: RunContext,
    setup: RunSetup,
    claim: Callable[[], Path],
    cleanup: contextlib.ExitStack,
    final_cleanup: contextlib.ExitStack,
    *,
    new: bool,
) -> OpenRun:
    """Open a run; see `run_training`.

    `cleanup` closes what was opened, also if opening fails half-way; `final_cleanup`, after it, draws the curve.
    """
    config, control = context.config, context.control
    group, evaluator, store, artifacts = control.group, None, None, None
    with group.exchange():
        if group.is_first:
            evaluator = Evaluator(
                context.build_eval,
                frame_stack=setup.stack,
                max_steps=config.max_episode_steps,
                check=control.stop.raise_if_signalled,
                say=control.show,
            )
            cleanup.callback(evaluator.close)
    folder = Path(group.broadcast_from_first(lambda: str(claim())))
    states = open_states(folder, config, group)
    with release_on_failure(folder, new=new and group.is_first):
        check_visible(folder, group)
        with group.exchange():
            if config.replay_storage != "device":
                store = _make_store(folder, config, setup.spec)
                cleanup.callback(store.close)
                updates, stacked = config.updates_per_batch, setup.spec.obs.is_image
                stored = with_frame_store(setup.agent, store, updates=updates, stacked=stacked)
                setup = setup._replace(agent=stored)
            training_loop = open_loop(context, setup, states)
    cleanup.callback(training_loop.close)
    with group.exchange():
        if evaluator is not None:
            artifacts = RunArtifacts(folder, context, setup, evaluator, states)
            final_cleanup.callback(artifacts.draw_curve)
            cleanup.callback(artifacts.close)
    saver = StateSaver(context, states, training_loop, artifacts, store)
    return OpenRun(folder, setup.agent, training_loop, artifacts, saver)


class Trainer:
    """Iterates a run's loop, and between its batches logs, evaluates, saves, and stops."""

    def __init__(self, context: RunContext, opened: OpenRun) -> None:
        self._config, self._saved, self._opened = context.config, context.saved, opened
        self._stop, self._group = context.control.stop, context.control.group
        self._ended = False  # stopped, and the state of that moment is on disk

    def steps(self) -> Generator[RunProgress, None, None]:
        """Train to the end of the budget, or until a stop is requested."""
        training_loop, artifacts = self._opened.training_loop, self._opened.artifacts
        if self._saved is not None and self._saved.manifest.record.evaluation_due:
            self._stop.allow_graceful(True)
            yield self._after_batch(training_loop.current_progress(self._opened.agent), state_folder=self._saved.folder)
        for progress in training_loop.loop:
            self._stop.allow_graceful(True)  # before the first batch there is no state worth waiting for
            with self._group.defer_error():
                if artifacts is not None:
                    artifacts.log(progress)
            step = self._after_batch(progress)
            try:
                yield step
            except GeneratorExit:
                self._opened.saver.save_on_exit(progress, training_loop.loop)
                raise
            if self._ended:
                return
        self._stop.allow_graceful(False)
        with self._group.exchange():
            if artifacts is not None and not self._stop.requested:
                artifacts.draw_agent()
        if self._stop.requested:
            self._stop.end_run()

    def _after_batch(self, progress: Progress, state_folder: Path | None = None) -> RunProgress:
        """Save, evaluate and stop, each if it is due.

        Args:
            progress: Progress after the batch; without a state, as within a chunk of the device loop, nothing is due.
            state_folder: Folder of the state of this batch, if it is on disk already.
        """
        if progress.state is None:
            return RunProgress(progress, None, self._opened.folder)
        stop, saver = self._stop, self._opened.saver
        evaluate, save = evaluates_at(self._config, progress.frames), saver.is_due(progress)
        if evaluate or save or stop.requested:
            check_state_finite(progress.state, progress.frames)
        # Before the evaluation, which may take long or fail.
        if save and state_folder is None and not stop.requested:
            state_folder = saver.save(progress, evaluation_due=evaluate)
        evaluation, evaluated = self._evaluate(progress) if evaluate and not stop.requested else (None, False)
        stopping = stop.requested  # read once: a request from here on waits for the next batch
        if stopping:
            stop.cancel_deadline()
        if stopping and state_folder is None:
            saver.save(progress, evaluation_due=evaluate and not evaluated, save_agent=True)
        elif state_folder is not None and evaluated:
            saver.mark_evaluated(state_folder, progress.frames)
        elif state_folder is not None and stopping:
            saver.save_agent(progress, state_folder)
        if stopping:
            stop.end_run()  # raises after a signal
            self._ended = True
        return RunProgress(progress, evaluation, self._opened.folder)

    def _evaluate(self, progress: Progress) -> tuple[Evaluation | None, bool]:
        """Return the evaluation, which only the first process has, and whether it was finished."""
        evaluation, artifacts = None, self._opened.artifacts
        with self._group.exchange() as exchange:
            with _until_requested(self._stop):
                evaluation = artifacts.evaluate(progress) if artifacts is not None else None
            exchange.local = evaluation is not None
        return evaluation, exchange.gathered[0]


@contextlib.contextmanager
def _until_requested(stop: Stop) -> Iterator[None]:
    """Run a block that a signal may end early; the code after it handles the request to stop."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not stop.signal_number:
            raise
