"""A whole run: environments, agent, loop, logs, evaluations, checkpoints, pictures."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import optax

from jaxdqn.agent import Agent
from jaxdqn.config import Config
from jaxdqn.envs.pixels import EnvFn, make_env_fn
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.envs.vector import Collector, Episode, make_vector_env
from jaxdqn.losses import Loss
from jaxdqn.run.assembly import Assembled, assemble, store_sizes
from jaxdqn.run.checkpoint import AgentSpec, Checkpoints
from jaxdqn.run.device_loop import device_loop
from jaxdqn.run.evaluation import Evaluation, Evaluator, summarise
from jaxdqn.run.frame_store import FrameStore, with_frame_store
from jaxdqn.run.host_loop import host_loop
from jaxdqn.run.pictures import draw_curve, record_gif
from jaxdqn.run.policy import greedy_policy, load
from jaxdqn.run.progress import Progress, passed
from jaxdqn.run.recorder import Recorder, check_output, claim_folder, release_folder
from jaxdqn.run.rollout import RolloutAhead


class RunProgress(NamedTuple):
    """What `train` yields after each batch.

    Attributes:
        progress: The loop's own progress.
        evaluation: The evaluation done at this batch; None for most.
        folder: The run's folder.
    """

    progress: Progress
    evaluation: Evaluation | None
    folder: Path


def train(
    config: Config,
    *,
    env_fn: EnvFn | None = None,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    rollout: RolloutAhead | None = None,
    name: str = "run",
) -> Generator[RunProgress, None, None]:
    """Train, and leave a run's folder: the whole job as a generator.

    It does nothing before it is iterated, trains for the config's whole budget, and closes its environments and
    files however the iteration ends.

    Args:
        config: The run.
        env_fn: The user's own environment in place of `config.env`.
        network: A Flax module in place of the config's; `load` then needs it again.
        optimizer: An optax transformation in place of the config's Adam.
        loss: Loss of one TD error in place of the config's.
        rollout: The random rollout of this config, which has begun already; None plays it here.
        name: Folder under `runs/` where `config.output` is None.

    Yields:
        Progress after each batch of `config.frames_per_batch` rows.

    Raises:
        ValueError: If the environment, the output or the sizes cannot be used; nothing has been written then.
    """
    started = time.monotonic()
    check_output(config)
    build = make_env_fn(config.env, pixels=config.pixels, frame_size=config.frame_size, env_fn=env_fn)
    with contextlib.ExitStack() as pictures, contextlib.ExitStack() as cleanup:
        own = {"env_fn": env_fn, "network": network}
        custom = tuple(name for name, given in own.items() if given is not None)
        parts = assemble(
            config, build, network=network, optimizer=optimizer, loss=loss, rollout=rollout, own_env=env_fn is not None
        )
        spec, agent, stack = parts.spec._replace(custom=custom), parts.agent, parts.stack
        evaluator = Evaluator(build, frame_stack=stack)
        cleanup.callback(evaluator.close)
        folder = claim_folder(config, name)
        if config.replay_storage != "device":
            store = _make_store(folder, config, spec)
            cleanup.callback(store.close)
            agent = with_frame_store(agent, store, updates=config.updates_per_batch, stacked=config.pixels)
        title = config.env if env_fn is None else None
        pictures.callback(_try, "curve.png", draw_curve, [folder], folder / "curve.png", label=title)
        recorder = Recorder(folder, config, started)
        cleanup.callback(recorder.close)
        selection = Selection(config, agent, evaluator, Checkpoints(folder / "checkpoints"), spec)

        loop = _begin(config, build, parts._replace(agent=agent), cleanup)
        for batch, progress in enumerate(loop, start=1):
            final = batch == config.num_batches
            evaluation = None
            recorder.log(progress, force=final)
            if final or passed(config.evaluate_every, progress.frames, config.frames_per_batch):
                evaluation = selection.evaluate(progress)
                recorder.log_evaluation(progress.frames, evaluation)
            yield RunProgress(progress, evaluation, folder)
        agent_gif = folder / "agent.gif"
        _try("agent.gif", lambda: record_gif(load(folder, env_fn=env_fn, network=network), agent_gif, seed=config.seed))


def _begin(
    config: Config, build: EnvFn, parts: Assembled, cleanup: contextlib.ExitStack
) -> Generator[Progress, None, None]:
    """The config's loop, and what it steps."""
    seed = spawn_seeds(config.seed, 1, Purpose.TRAINING)[0]
    if parts.run is not None:
        loop = device_loop(parts.run, parts.run.start(parts.state, jax.random.key(seed)), config)
    else:
        envs = make_vector_env(build, config.num_envs, workers=config.collector == "async")
        cleanup.callback(envs.close)
        collector = Collector(envs, seed=seed, frame_stack=parts.stack, reward_scale=config.reward_scale)
        loop = host_loop(parts.agent, parts.state, collector, config)
    cleanup.callback(loop.close)  # before what it uses is closed
    return loop


def _make_store(folder: Path, config: Config, spec: AgentSpec) -> FrameStore:
    """The store of a run's frames; where it cannot be had, the folder is given back."""
    path = folder / "replay.npy" if config.replay_storage == "disk" else None
    try:
        return FrameStore(**store_sizes(config, spec), path=path)
    except BaseException:
        release_folder(folder)
        raise


def _try(picture: str, draw: Callable[..., object], *args: Any, **options: Any) -> None:
    """Draw; a picture that fails is a warning, never the end of a run."""
    try:
        draw(*args, **options)
    except Exception as error:
        warnings.warn(f"no {picture}: {error}", RuntimeWarning, stacklevel=2)


class Selection:
    """Evaluates as a run goes on, and keeps the last agent and the best.

    The best agent has the best mean over `evaluation_episodes` episodes on seeds of its own; of equal ones, the
    latest, which has learned from more. A quarter of them are played first; only an agent that reaches the best mean
    with those plays the rest. An agent far from the best is then judged at a quarter of the price, and one that equals
    it at the whole.
    """

    def __init__(
        self, config: Config, agent: Agent, evaluator: Evaluator, checkpoints: Checkpoints, spec: AgentSpec
    ) -> None:
        self._agent = agent
        self._evaluator = evaluator
        self._checkpoints = checkpoints
        self._spec = spec
        self._greedy_params = config.greedy_params
        self._seeds = spawn_seeds(config.seed, config.evaluation_episodes, Purpose.SELECTION)
        self._screening = -(-config.evaluation_episodes // 4)
        self._best_mean = -float("inf")

    def evaluate(self, progress: Progress) -> Evaluation:
        """Evaluate an agent, and keep it as the last one and perhaps as the best."""
        assert progress.state is not None  # loops give it where the config evaluates
        learner = progress.state.learner
        params = learner.target_params if self._greedy_params == "target" else learner.params
        policy = greedy_policy(self._agent.q_values, params)
        episodes: list[Episode] = self._evaluator.play(policy, self._seeds[: self._screening])
        if summarise(episodes).mean >= self._best_mean:
            episodes += self._evaluator.play(policy, self._seeds[self._screening :])
        evaluation = summarise(episodes)
        is_best = evaluation.episodes == len(self._seeds) and evaluation.mean >= self._best_mean
        if is_best:
            self._best_mean = evaluation.mean
        best_mean = evaluation.mean if is_best else None
        self._checkpoints.save(params, self._spec, frames=progress.frames, best_mean=best_mean)
        return evaluation
