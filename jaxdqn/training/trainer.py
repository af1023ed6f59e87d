"""The course of a run: its loop, and what stands around it: logs, evaluations, states, pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxdqn.checkpoints.run_state import States
from jaxdqn.config import Config
from jaxdqn.distributed.processes import Peers
from jaxdqn.evaluation.evaluator import Evaluation, Evaluator
from jaxdqn.frame_store import with_frame_store
from jaxdqn.loops.finite import refuse_state_not_finite
from jaxdqn.loops.progress import Progress, evaluates_at
from jaxdqn.signals import Stop
from jaxdqn.storage.atomic import seen
from jaxdqn.training.artifacts import Clerk
from jaxdqn.training.checkpointing import Keeper
from jaxdqn.training.context import Job
from jaxdqn.training.loop import begin, go_on
from jaxdqn.training.run_dir import release_folder
from jaxdqn.training.setup import Assembled, make_store


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


def states_of(folder: Path, config: Config, peers: Peers) -> States:
    """The states of a run."""
    return States(folder / "states", keep=config.keep, with_replay=config.checkpoint_replay, peers=peers)


def run_course(
    job: Job, parts: Assembled, claim: Callable[[], Path], *, new: bool
) -> Generator[RunProgress, None, None]:
    """Train from the beginning, or from a state, to the end of the budget.

    Args:
        job: The run.
        parts: The agent.
        claim: Gives the run's folder, which may be made by it; called on the first process only.
        new: Whether the folder is given back where the run cannot begin.
    """
    config, found, stop, peers = job.config, job.found, job.stop, job.peers
    stop.patience = config.stop_seconds
    with contextlib.ExitStack() as last, contextlib.ExitStack() as cleanup:
        evaluator = None
        with peers.together():
            if peers.first:
                evaluator = Evaluator(
                    job.build_eval,
                    frame_stack=parts.stack,
                    max_steps=config.max_episode_steps,
                    check=stop.check,
                    say=job.show,
                )
                cleanup.callback(evaluator.close)
        folder = Path(peers.of_first(lambda: str(claim())))
        store, states = None, states_of(folder, config, peers)
        with _given_back(folder, new=new and peers.first):
            _refuse_unseen(folder, peers)
            with peers.together():
                if config.replay_storage != "device":
                    store = make_store(folder, config, parts.spec)
                    cleanup.callback(store.close)
                    updates, stacked = config.updates_per_batch, parts.spec.obs.is_image
                    stored = with_frame_store(parts.agent, store, updates=updates, stacked=stacked)
                    parts = parts._replace(agent=stored)
                if found is None:
                    stepping = begin(config, job.build, parts, peers)
                else:
                    stepping = go_on(config, job.build, parts, states, found, job.say_once, peers)
        cleanup.callback(stepping.close)
        clerk = None
        with peers.together():
            if evaluator is not None:
                clerk = Clerk(folder, job, parts, evaluator, states)
                last.callback(clerk.draw_curve)
                cleanup.callback(clerk.close)
        ended = False
        keeper = Keeper(job, parts, states, stepping, clerk, store)

        def finish(progress: Progress, kept: Path | None = None) -> RunProgress:
            """What a batch asks for, once it is logged; `kept` is its state if that is on disk already."""
            nonlocal ended
            evaluation, evaluated = None, False
            if progress.state is None:
                return RunProgress(progress, None, folder)
            evaluate, keep = evaluates_at(config, progress.frames), keeper.due(progress)
            if evaluate or keep or stop.requested:
                refuse_state_not_finite(progress.state, progress.frames)
            # Before the evaluation, which may be long, or fail: what was learned is on disk then.
            if keep and kept is None and not stop.requested:
                kept = keeper.keep(progress, evaluation_due=evaluate)
            if evaluate and not stop.requested:
                with peers.together() as told:
                    with _unless_asked(stop):
                        evaluation = clerk.evaluate(progress) if clerk is not None else None
                    told.mine = evaluation is not None
                evaluated = told.all[0]
            stopping = stop.requested  # asked once: what is asked for later waits for the next batch
            if stopping:
                stop.take_time()
            if stopping and kept is None:
                keeper.keep(progress, evaluation_due=evaluate and not evaluated, leaving=True)
            elif kept is not None and evaluated:
                keeper.say_evaluated(kept, progress.frames)
            elif kept is not None and stopping:
                keeper.keep_agent(progress, kept)
            if stopping:
                stop.leave()  # raises what a signal stands for
                ended = True
            return RunProgress(progress, evaluation, folder)

        if found is not None and found.facts["evaluation_due"]:
            stop.keeps(True)
            yield finish(stepping.here(parts.agent), kept=found.folder)
        for progress in stepping.loop:
            stop.keeps(True)  # before the first batch there is nothing that a signal should wait for
            with peers.later():
                if clerk is not None:
                    clerk.log(progress)
            step = finish(progress)
            try:
                yield step
            except GeneratorExit:
                keeper.leave(progress, stepping.loop)
                raise
            if ended:
                return
        stop.keeps(False)
        with peers.together():
            if clerk is not None and not stop.requested:
                clerk.draw_agent()
        if stop.requested:
            stop.leave()


@contextlib.contextmanager
def _unless_asked(stop: Stop) -> Iterator[None]:
    """A block that a signal ends early, and no more than that: what is to be done then comes after it."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not stop.asked:
            raise


@contextlib.contextmanager
def _given_back(folder: Path, *, new: bool) -> Iterator[None]:
    """Give the folder of a run that cannot begin back, where it is a new one."""
    try:
        yield
    except BaseException:
        if new:
            release_folder(folder)
        raise


def _refuse_unseen(folder: Path, peers: Peers) -> None:
    """Raise `ValueError` where a process does not see the folder that the first one keeps."""
    if peers.count == 1:
        return

    def leave_mark() -> str:
        mark = folder / f"seen-{os.urandom(8).hex()}"
        mark.touch()
        return mark.name

    mark = folder / peers.of_first(leave_mark)
    try:
        with peers.together():
            if not seen(mark.is_file):
                raise ValueError(f"output {str(folder)!r} is not the first process's: choose a folder that all share")
    finally:
        if peers.first:
            mark.unlink(missing_ok=True)
