"""The course of a run: its loop, and what stands around it: logs, evaluations, states, pictures."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import optax

from jaxdqn.config import Config
from jaxdqn.envs.pixels import EnvFn
from jaxdqn.losses import Loss
from jaxdqn.run.assembly import Assembled, store_sizes
from jaxdqn.run.checkpoint import AgentSpec, Checkpoints
from jaxdqn.run.evaluation import Evaluation, Evaluator
from jaxdqn.run.folders import release_folder
from jaxdqn.run.frame_store import FrameStore, with_frame_store
from jaxdqn.run.pictures import draw_curve, record_gif
from jaxdqn.run.policy import load
from jaxdqn.run.progress import Progress, passed
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
        """What must be given again to load the agent."""
        return tuple(name for name in ("env_fn", "network") if getattr(self, name) is not None)


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
    """
    with contextlib.ExitStack() as pictures, contextlib.ExitStack() as cleanup:
        evaluator = Evaluator(build, frame_stack=parts.stack, check=stop.check)
        cleanup.callback(evaluator.close)
        folder, store = claim(), None
        if config.replay_storage != "device":
            store = _make_store(folder, config, parts.spec, keep_folder=found is not None)
            cleanup.callback(store.close)
            with_store = with_frame_store(parts.agent, store, updates=config.updates_per_batch, stacked=config.pixels)
            parts = parts._replace(agent=with_store)
        states, checkpoints = states_of(folder, config), Checkpoints(folder / "checkpoints")
        facts = found.facts if found is not None else {"frames": 0, "log": None, "index": {}}
        if found is None:
            stepping = begin(config, build, parts)
            for left in ("states", "checkpoints", "tensorboard"):  # of a run that stopped before its first state
                shutil.rmtree(folder / left, ignore_errors=True)
        else:
            stepping = go_on(config, build, parts, states, found, say)
            states.drop_after(found.facts["frames"])
            checkpoints.go_back(found.facts["index"], states.agents())
        cleanup.callback(stepping.close)
        title = config.env if custom.env_fn is None else None
        pictures.callback(_try, "curve.png", draw_curve, [folder], folder / "curve.png", label=title)
        recorder = Recorder(folder, config, started, frames=facts["frames"], facts=facts["log"])
        cleanup.callback(recorder.close)
        selection = Selection(config, parts.agent, evaluator, checkpoints, parts.spec)
        keeper = _Keeper(config, parts.spec, states, stepping, recorder, selection, store, say)

        def finish(progress: Progress) -> RunProgress:
            """What a batch asks for, once it is logged."""
            final = progress.frames >= config.num_batches * config.frames_per_batch
            evaluate = final or passed(config.evaluate_every, progress.frames, config.frames_per_batch)
            evaluation = None
            try:
                if progress.state is not None:
                    stop.check()
                if evaluate:
                    evaluation = selection.evaluate(progress, others=states.agents())
                    recorder.log_evaluation(progress.frames, evaluation)
            except (KeyboardInterrupt, SystemExit):
                if stop.requested:
                    keeper.keep(progress, evaluation_due=evaluate and evaluation is None)
                raise
            if final or passed(config.checkpoint_every, progress.frames, config.frames_per_batch):
                keeper.keep(progress, evaluation_due=False)
            return RunProgress(progress, evaluation, folder)

        if found is not None and found.facts["evaluation_due"]:
            yield finish(stepping.here(parts.agent))
        for progress in stepping.loop:
            recorder.log(progress, force=progress.frames >= config.num_batches * config.frames_per_batch)
            yield finish(progress)
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
            "updates": progress.updates,
            "epsilon": progress.epsilon,
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


def _make_store(folder: Path, config: Config, spec: AgentSpec, *, keep_folder: bool) -> FrameStore:
    """The store of a run's frames; where it cannot be had, a new folder is given back."""
    path = folder / "replay.npy" if config.replay_storage == "disk" else None
    try:
        return FrameStore(**store_sizes(config, spec), path=path)
    except BaseException:
        if not keep_folder:
            release_folder(folder)
        raise


def _try(picture: str, draw: Callable[..., object], *args: Any, **options: Any) -> None:
    """Draw; a picture that fails is a warning, never the end of a run."""
    try:
        draw(*args, **options)
    except Exception as error:
        warnings.warn(f"no {picture}: {error}", RuntimeWarning, stacklevel=2)
