"""The course of a run: its loop, and what stands around it: logs, evaluations, states, pictures."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import optax

from jaxdqn.config import Config
from jaxdqn.envs.pixels import EnvFn
from jaxdqn.losses import Loss
from jaxdqn.run.assembly import Assembled, make_store
from jaxdqn.run.checkpoint import AgentSpec, Checkpoints
from jaxdqn.run.evaluation import Evaluation, Evaluator
from jaxdqn.run.folders import release_folder
from jaxdqn.run.frame_store import FrameStore, with_frame_store
from jaxdqn.run.pictures import draw_curve, record_gif
from jaxdqn.run.policy import load
from jaxdqn.run.progress import Progress, passed, refuse_state_not_finite
from jaxdqn.run.recorder import Recorder, versions
from jaxdqn.run.selection import Selection
from jaxdqn.run.states import Found, States
from jaxdqn.run.stepping import Stepping, begin, go_on
from jaxdqn.run.stop import Stop

Say = Callable[[str], None]


class RunProgress(NamedTuple):
    """What `train` and `resume` yield after each batch.

    Attributes:
        progress: The loop's own progress.
        evaluation: The evaluation done at this batch; None for most.
        folder: The run's folder.
    """

    progress: Progress
    evaluation: Evaluation | None
    folder: Path


class Custom(NamedTuple):
    """What of a run is the user's own, in place of what the config names.

    Attributes:
        env_fn: Builds an environment.
        network: A Flax module; `load` and `resume` then need it again.
        optimizer: An optax transformation in place of the config's Adam.
        loss: Loss of one TD error.
    """

    env_fn: EnvFn | None = None
    network: nn.Module | None = None
    optimizer: optax.GradientTransformation | None = None
    loss: Loss | None = None

    def names(self) -> tuple[str, ...]:
        """What must be given again to go on."""
        return tuple(name for name in self._fields if getattr(self, name) is not None)


def warn(note: str) -> None:
    """Say something that went otherwise than it should have."""
    warnings.warn(note, RuntimeWarning, stacklevel=3)


def states_of(folder: Path, config: Config) -> States:
    """The states of a run."""
    return States(folder / "states", keep=config.keep, with_replay=config.checkpoint_replay)


def run_course(
    config: Config,
    build: EnvFn,
    parts: Assembled,
    custom: Custom,
    claim: Callable[[], Path],
    found: Found | None,
    started: float,
    stop: Stop,
    say: Say,
    *,
    new: bool,
) -> Generator[RunProgress, None, None]:
    """Train from the beginning, or from a state, to the end of the budget.

    Args:
        config: The run.
        build: Builds one environment.
        parts: The agent.
        custom: What is the user's own.
        claim: Gives the run's folder, which may be made by it.
        found: The state to go on from; None begins anew.
        started: When this process began with it, on the clock of `time.monotonic`.
        stop: As `train` has it.
        say: As `train` has it.
        new: Whether the folder is given back where the run cannot begin.
    """
    with contextlib.ExitStack() as pictures, contextlib.ExitStack() as cleanup:
        evaluator = Evaluator(build, frame_stack=parts.stack, check=stop.check)
        cleanup.callback(evaluator.close)
        folder = claim()
        store, states, checkpoints = None, states_of(folder, config), Checkpoints(folder / "checkpoints")
        facts = found.facts if found is not None else {"frames": 0, "log": None, "index": {}}
        with _given_back(folder, new=new):
            if config.replay_storage != "device":
                store = make_store(folder, config, parts.spec)
                cleanup.callback(store.close)
                stored = with_frame_store(parts.agent, store, updates=config.updates_per_batch, stacked=config.pixels)
                parts = parts._replace(agent=stored)
            goes_on = None if found is None else go_on(config, build, parts, states, found, say)
            stepping = goes_on or begin(config, build, parts)
        cleanup.callback(stepping.close)
        if found is not None:
            states.drop_after(found.facts["frames"])
            for note in checkpoints.go_back(found.facts["index"], states.agents()):
                say(note)
        title = config.env if custom.env_fn is None else None
        pictures.callback(_try, "curve.png", draw_curve, [folder], folder / "curve.png", label=title)
        own = custom.names()
        recorder = Recorder(folder, config, started, frames=facts["frames"], facts=facts["log"], own=own)
        cleanup.callback(recorder.close)
        selection = Selection(config, parts.agent, evaluator, checkpoints, parts.spec)
        keeper = _Keeper(config, parts.spec, states, stepping, recorder, selection, store, say)

        def finish(progress: Progress) -> RunProgress:
            """What a batch asks for, once it is logged."""
            final = progress.frames >= config.num_batches * config.frames_per_batch
            evaluate = final or passed(config.evaluate_every, progress.frames, config.frames_per_batch)
            evaluation = None
            keep = final or passed(config.checkpoint_every, progress.frames, config.frames_per_batch)
            if progress.state is not None and (evaluate or keep or stop.requested):
                refuse_state_not_finite(progress.state, progress.frames)
            try:
                if progress.state is not None:
                    stop.check()
                if evaluate:
                    evaluation = selection.evaluate(progress, others=states.agents())
                    recorder.log_evaluation(progress.frames, evaluation)
            except (KeyboardInterrupt, SystemExit):
                if stop.requested:
                    stop.take_time()
                    keeper.keep(progress, evaluation_due=evaluate and evaluation is None)
                raise
            if keep:
                keeper.keep(progress, evaluation_due=False)
            return RunProgress(progress, evaluation, folder)

        if found is not None and found.facts["evaluation_due"]:
            stop.keeps(True)
            yield finish(stepping.here(parts.agent))
        for progress in stepping.loop:
            stop.keeps(True)  # before the first batch there is nothing that a signal should wait for
            recorder.log(progress, force=progress.frames >= config.num_batches * config.frames_per_batch)
            yield finish(progress)
        stop.keeps(False)
        stop.check()
        agent_gif = folder / "agent.gif"
        best = lambda: load(folder, env_fn=custom.env_fn, network=custom.network)  # noqa: E731
        _try("agent.gif", lambda: record_gif(best(), agent_gif, seed=config.seed))


class _Keeper:
    """Writes the states of a run."""

    def __init__(
        self,
        config: Config,
        spec: AgentSpec,
        states: States,
        stepping: Stepping,
        recorder: Recorder,
        selection: Selection,
        store: FrameStore | None,
        say: Say,
    ) -> None:
        self._facts = {"config": config.to_dict(), "versions": versions(), "spec": spec.to_dict()}
        self._states, self._stepping, self._recorder = states, stepping, recorder
        self._selection, self._store, self._say = selection, store, say

    def keep(self, progress: Progress, *, evaluation_due: bool) -> None:
        """Write the state of this moment; where that fails the run goes on, and the last one stays."""
        assert progress.state is not None  # loops give it where the config asks for a checkpoint
        rest, envs = self._stepping.snapshot(progress)
        facts = {
            **self._facts,
            "evaluation_due": evaluation_due,
            "log": self._recorder.facts(),
            "index": self._selection.index(),
        }
        read_obs = None if self._store is None else self._store.read
        try:
            self._states.save(progress.frames, progress.state, facts, rest=rest, envs=envs, read_obs=read_obs)
        except OSError as error:
            kept = self._states.all()
            last = f"the last one is {kept[-1]}" if kept else "there is none yet"
            self._say(f"no checkpoint of frame {progress.frames:,}: {error}; {last}")


@contextlib.contextmanager
def _given_back(folder: Path, *, new: bool) -> Iterator[None]:
    """Give the folder of a run that cannot begin back, where it is a new one."""
    try:
        yield
    except BaseException:
        if new:
            release_folder(folder)
        raise


def _try(picture: str, draw: Callable[..., object], *args: Any, **options: Any) -> None:
    """Draw; a picture that fails is a warning, never the end of a run."""
    try:
        draw(*args, **options)
    except Exception as error:
        warnings.warn(f"no {picture}: {error}", RuntimeWarning, stacklevel=2)
