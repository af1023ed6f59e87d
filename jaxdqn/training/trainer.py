"""The course of a run: its loop, and what stands around it: logs, evaluations, states, pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxdqn.checkpoints.run_state import States
from jaxdqn.config import Config
from jaxdqn.distributed.processes import ProcessGroup
from jaxdqn.evaluation.evaluator import Evaluation, Evaluator
from jaxdqn.frame_store import with_frame_store
from jaxdqn.loops.finite import check_state_finite
from jaxdqn.loops.progress import Progress, evaluates_at
from jaxdqn.signals import Stop
from jaxdqn.storage.atomic import wait_until_visible
from jaxdqn.training.artifacts import RunArtifacts
from jaxdqn.training.checkpointing import StateSaver
from jaxdqn.training.context import RunContext
from jaxdqn.training.loop import resume_loop, start_loop
from jaxdqn.training.run_dir import release_folder
from jaxdqn.training.setup import RunSetup, make_store


class RunProgress(NamedTuple):
    """What `train` and `resume` yield after each batch.

    Attributes:
        progress: The loop's own progress.
        evaluation: The evaluation done at this batch; None for most, and on all processes but the first.
        folder: The run's folder.
    """

    progress: Progress
    evaluation: Evaluation | None
    folder: Path


def open_states(folder: Path, config: Config, group: ProcessGroup) -> States:
    """The states of a run."""
    return States(folder / "states", keep=config.keep, with_replay=config.checkpoint_replay, group=group)


def run_training(
    context: RunContext, setup: RunSetup, claim: Callable[[], Path], *, new: bool
) -> Generator[RunProgress, None, None]:
    """Train from the beginning, or from a state, to the end of the budget.

    Args:
        context: The run.
        setup: The agent.
        claim: Gives the run's folder, which may be made by it; called on the first process only.
        new: Whether the folder is given back where the run cannot begin.
    """
    config, saved, stop, group = context.config, context.saved, context.stop, context.group
    stop.patience = config.stop_seconds
    with contextlib.ExitStack() as last, contextlib.ExitStack() as cleanup:
        evaluator = None
        with group.exchange():
            if group.is_first:
                evaluator = Evaluator(
                    context.build_eval,
                    frame_stack=setup.stack,
                    max_steps=config.max_episode_steps,
                    check=stop.check,
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
                last.callback(artifacts.draw_curve)
                cleanup.callback(artifacts.close)
        ended = False
        saver = StateSaver(context, setup, states, training_loop, artifacts, store)

        def after_batch(progress: Progress, kept: Path | None = None) -> RunProgress:
            """What a batch asks for, once it is logged; `kept` is its state if that is on disk already."""
            nonlocal ended
            evaluation, evaluated = None, False
            if progress.state is None:
                return RunProgress(progress, None, folder)
            evaluate, keep = evaluates_at(config, progress.frames), saver.due(progress)
            if evaluate or keep or stop.requested:
                check_state_finite(progress.state, progress.frames)
            # Before the evaluation, which may be long, or fail: what was learned is on disk then.
            if keep and kept is None and not stop.requested:
                kept = saver.keep(progress, evaluation_due=evaluate)
            if evaluate and not stop.requested:
                with group.exchange() as exchange:
                    with _until_requested(stop):
                        evaluation = artifacts.evaluate(progress) if artifacts is not None else None
                    exchange.local = evaluation is not None
                evaluated = exchange.gathered[0]
            stopping = stop.requested  # asked once: what is asked for later waits for the next batch
            if stopping:
                stop.cancel_deadline()
            if stopping and kept is None:
                saver.keep(progress, evaluation_due=evaluate and not evaluated, leaving=True)
            elif kept is not None and evaluated:
                saver.mark_evaluated(kept, progress.frames)
            elif kept is not None and stopping:
                saver.save_agent(progress, kept)
            if stopping:
                stop.leave()  # raises what a signal stands for
                ended = True
            return RunProgress(progress, evaluation, folder)

        if saved is not None and saved.facts["evaluation_due"]:
            stop.allow_graceful(True)
            yield after_batch(training_loop.current_progress(setup.agent), kept=saved.folder)
        for progress in training_loop.loop:
            stop.allow_graceful(True)  # before the first batch there is nothing that a signal should wait for
            with group.later():
                if artifacts is not None:
                    artifacts.log(progress)
            step = after_batch(progress)
            try:
                yield step
            except GeneratorExit:
                saver.leave(progress, training_loop.loop)
                raise
            if ended:
                return
        stop.allow_graceful(False)
        with group.exchange():
            if artifacts is not None and not stop.requested:
                artifacts.draw_agent()
        if stop.requested:
            stop.leave()


@contextlib.contextmanager
def _until_requested(stop: Stop) -> Iterator[None]:
    """A block that a signal ends early, and no more than that: what is to be done then comes after it."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not stop.asked:
            raise


@contextlib.contextmanager
def release_on_failure(folder: Path, *, new: bool) -> Iterator[None]:
    """Give the folder of a run that cannot begin back, where it is a new one."""
    try:
        yield
    except BaseException:
        if new:
            release_folder(folder)
        raise


def _check_folder_visible(folder: Path, group: ProcessGroup) -> None:
    """Raise `ValueError` where a process does not see the folder that the first one keeps."""
    if group.count == 1:
        return

    def leave_mark() -> str:
        mark = folder / f"seen-{os.urandom(8).hex()}"
        mark.touch()
        return mark.name

    mark = folder / group.broadcast_from_first(leave_mark)
    try:
        with group.exchange():
            if not wait_until_visible(mark.is_file):
                raise ValueError(f"output {str(folder)!r} is not the first process's: choose a folder that all share")
    finally:
        if group.is_first:
            mark.unlink(missing_ok=True)
