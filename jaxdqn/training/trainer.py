"""The trainer: run the training loop, and write logs, evaluations, states and pictures between its batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxdqn.agent.state import Agent
from jaxdqn.checkpoints.run_state import States
from jaxdqn.config import Config
from jaxdqn.distributed.process_group import ProcessGroup
from jaxdqn.evaluation.evaluator import Evaluation, Evaluator
from jaxdqn.frame_store import with_frame_store
from jaxdqn.loops.finite import check_state_finite
from jaxdqn.loops.intervals import evaluates_at
from jaxdqn.loops.progress import Progress
from jaxdqn.signals import Stop
from jaxdqn.training.agent_setup import RunSetup, make_store
from jaxdqn.training.artifacts import RunArtifacts
from jaxdqn.training.context import RunContext
from jaxdqn.training.run_dir import check_visible, release_on_failure
from jaxdqn.training.start_loop import TrainingLoop, resume_loop, start_loop
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
        run = _open_run(context, setup, claim, cleanup, new=new)
        if run.artifacts is not None:
            final_cleanup.callback(run.artifacts.draw_curve)  # after the logs are closed
        yield from Trainer(context, run).run()


def _open_run(
    context: RunContext, setup: RunSetup, claim: Callable[[], Path], cleanup: contextlib.ExitStack, *, new: bool
) -> OpenRun:
    """Open a run; see `run_training`. `cleanup` closes what was opened, also if opening fails half-way."""
    config, control, saved = context.config, context.control, context.saved
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
                store = make_store(folder, config, setup.spec)
                cleanup.callback(store.close)
                updates, stacked = config.updates_per_batch, setup.spec.obs.is_image
                stored = with_frame_store(setup.agent, store, updates=updates, stacked=stacked)
                setup = setup._replace(agent=stored)
            training_loop = start_loop(context, setup) if saved is None else resume_loop(context, setup, states, saved)
    cleanup.callback(training_loop.close)
    with group.exchange():
        if evaluator is not None:
            artifacts = RunArtifacts(folder, context, setup, evaluator, states)
            cleanup.callback(artifacts.close)
    saver = StateSaver(context, states, training_loop, artifacts, store)
    return OpenRun(folder, setup.agent, training_loop, artifacts, saver)


class Trainer:
    """Iterates a run's loop, and between its batches logs, evaluates, saves, and stops."""

    def __init__(self, context: RunContext, run: OpenRun) -> None:
        self._config, self._saved, self._run = context.config, context.saved, run
        self._stop, self._group = context.control.stop, context.control.group
        self._ended = False  # stopped, and the state of that moment is on disk

    def run(self) -> Generator[RunProgress, None, None]:
        """Train to the end of the budget, or until a stop is requested."""
        loop, artifacts = self._run.training_loop, self._run.artifacts
        if self._saved is not None and self._saved.manifest.record.evaluation_due:
            self._stop.allow_graceful(True)
            yield self._after_batch(loop.current_progress(self._run.agent), state_folder=self._saved.folder)
        for progress in loop.loop:
            self._stop.allow_graceful(True)  # before the first batch there is no state worth waiting for
            with self._group.defer_error():
                if artifacts is not None:
                    artifacts.log(progress)
            step = self._after_batch(progress)
            try:
                yield step
            except GeneratorExit:
                self._run.saver.save_on_exit(progress, loop.loop)
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
            return RunProgress(progress, None, self._run.folder)
        stop, saver = self._stop, self._run.saver
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
        return RunProgress(progress, evaluation, self._run.folder)

    def _evaluate(self, progress: Progress) -> tuple[Evaluation | None, bool]:
        """Return the evaluation, which only the first process has, and whether it was finished."""
        evaluation, artifacts = None, self._run.artifacts
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
