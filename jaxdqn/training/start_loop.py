"""The training loop of a run with its environments, gymnasium's or functional ones, new or resumed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple

import jax

from jaxdqn.agent.agent import Agent, AgentState
from jaxdqn.checkpoints.process_parts import SavedState, read_envs
from jaxdqn.checkpoints.replay_files import cut_open_episodes
from jaxdqn.checkpoints.run_state import States
from jaxdqn.envs.seeds import Purpose, process_seed, spawn_seeds
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import make_vector_env
from jaxdqn.envs.vector.snapshots import Snapshot
from jaxdqn.loops.device_loop import device_loop
from jaxdqn.loops.device_run import DeviceRun, RunState
from jaxdqn.loops.host_loop import host_loop
from jaxdqn.loops.progress import Progress
from jaxdqn.training.context import RunContext
from jaxdqn.training.setup import RunSetup


class TrainingLoop(NamedTuple):
    """A run's loop, and the environments that it steps.

    Attributes:
        loop: Yields progress after each batch.
        state: The agent's state before the first batch; the loop consumes it.
        run_state: With loop "device": the agent's state and the environments; otherwise None.
        collector: With loop "host": steps the environments; otherwise None.
        close: Ends the loop, and then closes the environments.
    """

    loop: Generator[Progress, None, None]
    state: AgentState
    run_state: RunState | None
    collector: Collector | None
    close: Callable[[], None]

    def current_progress(self, agent: Agent) -> Progress:
        """Return the progress of the run before the loop's first batch."""
        frames, updates = int(self.state.actor.frame), int(self.state.learner.num_updates)
        epsilon = float(agent.epsilon(self.state.actor.frame))
        return Progress(frames, updates, epsilon, [], {}, self.state, self.run_state)

    def snapshot(self, progress: Progress) -> tuple[Any, Snapshot | None]:
        """Return the environments to save: arrays of functional ones, or a snapshot of gymnasium's."""
        if progress.run_state is not None:
            return progress.run_state[1:], None
        return None, self.collector.snapshot() if self.collector is not None else None


def open_loop(context: RunContext, setup: RunSetup, states: States) -> TrainingLoop:
    """Return the config's loop, for a new run or resumed from the state in the context.

    Args:
        context: The run; what differs from the run before goes to its control's `say`.
        setup: The agent, and a fresh state, which is consumed.
        states: The run's states.

    Raises:
        ValueError: If the state on disk has another architecture.
    """
    if context.saved is None:
        return _start(context, setup)
    return _resume(context, setup, states, context.saved)


def _start(context: RunContext, setup: RunSetup) -> TrainingLoop:
    """Return the loop of a new run; each process has environments with their own seed."""
    seed = _env_seed(context, Purpose.TRAINING, 0)
    if setup.run is not None:
        return _on_device(context, setup.run, setup.run.start(setup.state, jax.random.key(seed)))
    return _on_host(context, setup, setup.state, seed)


def _resume(context: RunContext, setup: RunSetup, states: States, saved: SavedState) -> TrainingLoop:
    """Return the loop of a resumed run, and say what differs from the run before."""
    say, group = context.control.say_once, context.control.group
    if not saved.manifest.replay:
        say("the state was saved without replay: replay is filled again before learning continues")
    elif saved.missing_processes:
        say(
            f"the parts of {', '.join(saved.missing_processes)} are missing from the state: "
            "replay is filled again before learning continues"
        )
    processes_differ = not saved.is_complete_for(group.count)
    if processes_differ:
        now = "" if saved.missing_processes else f"the run had {saved.processes} processes and has {group.count} now: "
        say(f"{now}environments begin new episodes, and the resume is not bit-exact")
    seed = _env_seed(context, Purpose.RESUMING, saved.manifest.frames // context.config.frames_per_batch)
    if setup.run is not None:
        like = setup.run.start(setup.state, jax.random.key(seed))
        state, rest = states.load(saved, setup.agent, like.agent, like[1:])
        if processes_differ:
            state, rest = state._replace(replay=cut_open_episodes(state.replay)), like[1:]
        return _on_device(context, setup.run, RunState(state, *rest))
    state, _ = states.load(saved, setup.agent, setup.state)
    snapshot = read_envs(saved, group.index, group.count)
    if snapshot is None:
        state = state._replace(replay=cut_open_episodes(state.replay))
        states.forget_written_replay()
        if not processes_differ:
            say("the environments could not be saved: they begin new episodes, and the resume is not bit-exact")
    return _on_host(context, setup, state, seed, snapshot)


def _env_seed(context: RunContext, purpose: Purpose, index: int) -> int:
    """Return the seed of this process's environments, the `index`-th that the run uses for a purpose."""
    return process_seed(spawn_seeds(context.config.seed, index + 1, purpose)[-1], context.control.group.index)


def _on_device(context: RunContext, run: DeviceRun, state: RunState) -> TrainingLoop:
    loop = device_loop(run, state, context.config, context.control.group)
    return TrainingLoop(loop, state.agent, state, None, loop.close)


def _on_host(
    context: RunContext, setup: RunSetup, state: AgentState, seed: int, snapshot: Snapshot | None = None
) -> TrainingLoop:
    config, group = context.config, context.control.group
    num_envs = config.num_envs // group.count
    make = partial(make_vector_env, context.build, num_envs, workers=config.collector == "async")
    envs = make()
    try:
        collector = Collector(
            envs,
            seed=seed,
            frame_stack=setup.stack,
            reward_scale=config.reward_scale,
            clip_rewards=config.clip_rewards,
            terminal_on_life_loss=config.terminal_on_life_loss,
            snapshot=snapshot,
            rebuild=make if config.restart_workers else None,
        )
    except BaseException:
        envs.close()
        raise
    loop = host_loop(setup.agent, state, collector, config, group)

    def close() -> None:
        loop.close()
        collector.close()

    return TrainingLoop(loop, state, None, collector, close)
