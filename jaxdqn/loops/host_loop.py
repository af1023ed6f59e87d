"""The training loop on the host: a generator, so that logs, evaluation and the user's own code stay outside it.

The hooks of TorchRL's Trainer become code in the body of `for progress in host_loop(...)`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from jaxdqn.agent.agent import ActorState, Agent, AgentState
from jaxdqn.config import Config
from jaxdqn.distributed.process_group import ProcessGroup
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import Episode
from jaxdqn.loops.finite import check_metrics_finite
from jaxdqn.loops.progress import Progress, gathered_episodes, learning_start_after
from jaxdqn.types import Rows


def host_loop(
    agent: Agent, state: AgentState, collector: Collector, config: Config, group: ProcessGroup | None = None
) -> Generator[Progress, None, None]:
    """Collect, observe and learn, until the config's frames are collected.

        sync     collect frames_per_batch rows -> observe them -> learn updates_per_batch times -> yield
        async    wait for the rows -> observe them -> start on the next rows -> learn -> yield

    With `config.collector` "async" a thread collects the next rows during the updates, with the parameters from before
    them. The policy is always exactly one batch old, so that the same seed gives the same run here as well. If you
    leave the loop, one more batch has been collected that was never yielded: to continue from its state, use fresh
    environments. Make them with `make_vector_env(..., workers=True)`: in one process, collecting and learning would
    slow each other down.

    Args:
        agent: The pure functions of the agent.
        state: Their state, fresh or from an earlier loop, which is then continued; consumed.
        collector: The environments.
        config: The run's config.
        group: The processes that train together, each with its share of the config's environments; every process calls
            this function. None if this process trains alone.

    Yields:
        Progress after each batch, with the episodes of all processes.

    Raises:
        FloatingPointError: If an observation, a reward, a loss or a gradient is not finite.
        ProcessError: If another process has failed.
        ValueError: If the collector has another number of environments than this process's share of the config's.
    """
    group = group or ProcessGroup.alone()
    if collector.num_envs * group.count != config.num_envs:
        share = f" times {group.count} processes" if group.count > 1 else ""
        raise ValueError(f"num_envs {config.num_envs} must be the collector's {collector.num_envs}{share}: change one")
    frames, updates = int(state.actor.frame), int(state.learner.num_updates)
    learning_start = learning_start_after(state, agent, config.num_envs)
    batches = range(frames // config.frames_per_batch, config.num_batches)

    def collect(actor: ActorState) -> tuple[ActorState, Rows, list[Episode]]:
        def act(*seen: np.ndarray) -> np.ndarray:
            nonlocal actor
            actor, actions = agent.act(actor, *seen)
            return np.asarray(actions)

        num_steps = config.frames_per_batch // config.num_envs
        rows, episodes = collector.collect(act, num_steps, frames=int(actor.frame))
        return actor, rows, episodes

    # A separate thread, because XLA's CPU backend executes the calls of one thread in order: from this thread, `act`
    # would wait for the whole `learn`.
    with _shut_down_at_end(ThreadPoolExecutor(1, "collector")) as executor:
        pending = executor.submit(collect, state.actor) if config.collector == "async" and batches else None
        for batch in batches:
            with group.exchange() as exchange:
                actor, rows, exchange.local = pending.result() if pending else collect(state.actor)
            episodes = gathered_episodes(exchange)
            newest = state.actor.params  # rows that were collected during the updates come with older ones
            state = agent.observe(state._replace(actor=actor._replace(params=newest)), rows)
            if pending and batch + 1 < config.num_batches:
                pending = executor.submit(collect, state.actor)
            frames += config.frames_per_batch
            metrics: dict[str, float] = {}
            if frames >= learning_start:
                with group.name_lost_process():
                    state, traces = agent.learn(state)
                    traces = jax.device_get(traces)
                check_metrics_finite(traces, frames)
                metrics = {name: float(np.mean(values)) for name, values in traces.items()}
                updates += config.updates_per_batch
            yield Progress(frames, updates, float(agent.epsilon(state.actor.frame)), episodes, metrics, state)


@contextlib.contextmanager
def _shut_down_at_end(executor: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Wait for the thread at the end, unless a signal stops the run: an environment that hangs would block forever."""
    wait = True
    try:
        yield executor
    except (KeyboardInterrupt, SystemExit):
        wait = False
        raise
    finally:
        executor.shutdown(wait=wait, cancel_futures=True)
