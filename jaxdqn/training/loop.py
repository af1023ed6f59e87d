"""What a run steps, from its beginning or from where it stopped: gymnasium's environments or functional ones."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple

import jax

from jaxdqn.agent import Agent, AgentState
from jaxdqn.checkpoints.replay import cut_open_episodes
from jaxdqn.checkpoints.run_state import States
from jaxdqn.checkpoints.shards import Found, read_envs
from jaxdqn.config import Config
from jaxdqn.distributed.processes import Peers
from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.envs.seeds import Purpose, process_seed, spawn_seeds
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import make_vector_env
from jaxdqn.envs.vector.snapshots import Snapshot
from jaxdqn.loops.device import device_loop
from jaxdqn.loops.device_run import DeviceRun, RunState
from jaxdqn.loops.host import host_loop
from jaxdqn.loops.progress import Progress
from jaxdqn.training.setup import Assembled


class Stepping(NamedTuple):
    """A run's loop, and the environments that it steps.

    Attributes:
        loop: Progress after each batch.
        state: The agent's state at its beginning; consumed by it.
        run_state: On the device: that and the environments.
        collector: On the host: the environments.
        close: Ends the loop, and then closes the environments.
    """

    loop: Generator[Progress, None, None]
    state: AgentState
    run_state: RunState | None
    collector: Collector | None
    close: Callable[[], None]

    def here(self, agent: Agent) -> Progress:
        """Where the run stands before the loop's first batch."""
        frames, updates = int(self.state.actor.frame), int(self.state.learner.num_updates)
        epsilon = float(agent.epsilon(self.state.actor.frame))
        return Progress(frames, updates, epsilon, [], {}, self.state, self.run_state)

    def snapshot(self, progress: Progress) -> tuple[Any, Snapshot | None]:
        """What else than the agent decides the run's future: arrays of the device, and of the host."""
        if progress.run_state is not None:
            return progress.run_state[1:], None
        return None, self.collector.snapshot() if self.collector is not None else None


def begin(config: Config, build: EnvFn, parts: Assembled, peers: Peers) -> Stepping:
    """The config's loop, from its beginning; each process has environments of its own seed."""
    seed = process_seed(spawn_seeds(config.seed, 1, Purpose.TRAINING)[0], peers.index)
    if parts.run is not None:
        return _on_device(parts.run, parts.run.start(parts.state, jax.random.key(seed)), config, peers)
    return _on_host(config, build, parts, parts.state, seed, None, peers)


def go_on(
    config: Config,
    build: EnvFn,
    parts: Assembled,
    states: States,
    found: Found,
    say: Callable[[str], None],
    peers: Peers,
) -> Stepping:
    """The config's loop, from a state on disk.

    Args:
        config: The run.
        build: Builds one environment.
        parts: The agent, and a fresh state, which is consumed.
        states: The run's states.
        found: One of them.
        say: Is told what is not as it was.
        peers: The processes.

    Raises:
        ValueError: If the state is of another architecture.
    """
    if not found.facts["replay"]:
        say("the state was kept without replay: it is filled again before anything is learned")
    elif found.absent:
        say(f"what {', '.join(found.absent)} kept is not there: replay is filled again before anything is learned")
    others = not found.is_of(peers.count)
    if others:
        now = "" if found.absent else f"the run had {found.processes} processes and has {peers.count} now: "
        say(f"{now}environments begin new episodes, and the resume is not bit-exact")
    index = found.facts["frames"] // config.frames_per_batch
    seed = process_seed(spawn_seeds(config.seed, index + 1, Purpose.RESUMING)[-1], peers.index)
    if parts.run is not None:
        like = parts.run.start(parts.state, jax.random.key(seed))
        state, rest = states.load(found, parts.agent, like.agent, like[1:])
        if others:
            state, rest = state._replace(replay=cut_open_episodes(state.replay)), like[1:]
        return _on_device(parts.run, RunState(state, *rest), config, peers)
    state, _ = states.load(found, parts.agent, parts.state)
    snapshot = read_envs(found, peers.index, peers.count)
    if snapshot is None:
        state = state._replace(replay=cut_open_episodes(state.replay))
        states.forget()
        if not others:
            say("the environments could not be saved: they begin new episodes, and the resume is not bit-exact")
    return _on_host(config, build, parts, state, seed, snapshot, peers)


def _on_device(run: DeviceRun, state: RunState, config: Config, peers: Peers) -> Stepping:
    loop = device_loop(run, state, config, peers)
    return Stepping(loop, state.agent, state, None, loop.close)


def _on_host(
    config: Config,
    build: EnvFn,
    parts: Assembled,
    state: AgentState,
    seed: int,
    snapshot: Snapshot | None,
    peers: Peers,
) -> Stepping:
    make = partial(make_vector_env, build, config.num_envs // peers.count, workers=config.collector == "async")
    envs = make()
    try:
        collector = Collector(
            envs,
            seed=seed,
            frame_stack=parts.stack,
            reward_scale=config.reward_scale,
            snapshot=snapshot,
            rebuild=make if config.restart_workers else None,
        )
    except BaseException:
        envs.close()
        raise
    loop = host_loop(parts.agent, state, collector, config, peers)

    def close() -> None:
        loop.close()
        collector.close()

    return Stepping(loop, state, None, collector, close)
