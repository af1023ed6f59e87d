"""The trainer: run the training loop, and write logs, evaluations, states and pictures between its batches."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxdqn.checkpoints.run_state import States
from jaxdqn.config import Config
from jaxdqn.distributed.process_group import ProcessGroup
from jaxdqn.evaluation.evaluator import Evaluation, Evaluator
from jaxdqn.frame_store import with_frame_store
from jaxdqn.loops.finite import check_state_finite
from jaxdqn.loops.intervals import evaluates_at
from jaxdqn.loops.progress import Progress
from jaxdqn.signals import Stop
from jaxdqn.storage.atomic import wait_until_visible
from jaxdqn.training.agent_setup import RunSetup, make_store
from jaxdqn.training.artifacts import RunArtifacts
from jaxdqn.training.context import RunContext
from jaxdqn.training.run_dir import release_folder
from jaxdqn.training.start_loop import resume_loop, start_loop
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
    config, saved, stop, group = context.config, context.saved, context.stop, context.group
    stop.grace_seconds = config.stop_seconds
    with contextlib.ExitStack() as final_cleanup, contextlib.ExitStack() as cleanup:
        evaluator = None
        with group.exchange():
            if group.is_first:
                evaluator = Evaluator(
                    context.build_eval,
                    frame_stack=setup.stack,
                    max_steps=config.max_episode_steps,
                    check=stop.raise_if_signalled,
                    say=context.show,
                )
                cleanup.callback(evaluator.close)
        folder = Path(group.broadcast_from_first(lambda: str(claim())))
        store, states = None, open_states(folder, config, group)
        with release_on_failure(folder, new=new and group.is_first):
            _check_folder_visible(folder, group)
            with group.exchange():
                if config.replay_storage != "device":
                    store = make_store(folder, config, setup.spec)
                    cleanup.callback(store.close)
                    updates, stacked = config.updates_per_batch, setup.spec.obs.is_image
                    stored = with_frame_store(setup.agent, store, updates=updates, stacked=stacked)
                    setup = setup._replace(agent=stored)
                if saved is None:
                    training_loop = start_loop(config, context.build, setup, group)
                else:
                    training_loop = resume_loop(config, context.build, setup, states, saved, context.say_once, group)
        cleanup.callback(training_loop.close)
        artifacts = None
        with group.exchange():
            if evaluator is not None:
                artifacts = RunArtifacts(folder, context, setup, evaluator, states)
                final_cleanup.callback(artifacts.draw_curve)
                cleanup.callback(artifacts.close)
        ended = False
        saver = StateSaver(context, setup, states, training_loop, artifacts, store)

        def after_batch(progress: Progress, state_folder: Path | None = None) -> RunProgress:
            """Evaluate, save and stop if due. `state_folder` holds the state of this batch if it is on disk already."""
            nonlocal ended
            evaluation, evaluated = None, False
            if progress.state is None:
                return RunProgress(progress, None, folder)
            evaluate, save = evaluates_at(config, progress.frames), saver.is_due(progress)
            if evaluate or save or stop.requested:
                check_state_finite(progress.state, progress.frames)
            # Before the evaluation, which may take long or fail.
            if save and state_folder is None and not stop.requested:
                state_folder = saver.save(progress, evaluation_due=evaluate)
            if evaluate and not stop.requested:
                with group.exchange() as exchange:
                    with _until_requested(stop):
                        evaluation = artifacts.evaluate(progress) if artifacts is not None else None
                    exchange.local = evaluation is not None
                evaluated = exchange.gathered[0]
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
                ended = True
            return RunProgress(progress, evaluation, folder)

        if saved is not None and saved.manifest.record.evaluation_due:
            stop.allow_graceful(True)
            yield after_batch(training_loop.current_progress(setup.agent), state_folder=saved.folder)
        for progress in training_loop.loop:
            stop.allow_graceful(True)  # before the first batch there is no state worth waiting for
            with group.defer_error():
                if artifacts is not None:
                    artifacts.log(progress)
            step = after_batch(progress)
            try:
                yield step
            except GeneratorExit:
                saver.save_on_exit(progress, training_loop.loop)
                raise
            if ended:
                return
        stop.allow_graceful(False)
        with group.exchange():
            if artifacts is not None and not stop.requested:
                artifacts.draw_agent()
        if stop.requested:
            stop.end_run()


@contextlib.contextmanager
def _until_requested(stop: Stop) -> Iterator[None]:
    """Run a block that a signal may end early; the code after it handles the request to stop."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not stop.signal_number:
            raise


@contextlib.contextmanager
def release_on_failure(folder: Path, *, new: bool) -> Iterator[None]:
    """Release the folder of a run if the block fails and the folder is new."""
    try:
        yield
    except BaseException:
        if new:
            release_folder(folder)
        raise


def _check_folder_visible(folder: Path, group: ProcessGroup) -> None:
    """Raise `ValueError` if a process does not see the folder that the first process writes to."""
    if group.count == 1:
        return

    def create_probe() -> str:
        probe = folder / f"seen-{os.urandom(8).hex()}"
        probe.touch()
        return probe.name

    probe = folder / group.broadcast_from_first(create_probe)
    try:
        with group.exchange():
            if not wait_until_visible(probe.is_file):
                raise ValueError(f"output {str(folder)!r} is not the first process's: choose a folder that all share")
    finally:
        if group.is_first:
            probe.unlink(missing_ok=True)
