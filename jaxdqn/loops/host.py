"""The training loop on the host: a generator, so that logs, evaluation and a user's own code stand outside it.

What TorchRL's Trainer takes as hooks is code in the body of `for progress in host_loop(...)`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from jaxdqn.agent import ActorState, Agent, AgentState
from jaxdqn.config import Config
from jaxdqn.distributed.processes import ProcessGroup
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import Episode
from jaxdqn.loops.finite import check_metrics_finite
from jaxdqn.loops.progress import Progress, gathered_episodes, learning_start_after
from jaxdqn.types import Rows


def host_loop(
    agent: Agent, state: AgentState, collector: Collector, config: Config, group: ProcessGroup | None = None
) -> Generator[Progress, None, None]:
    """Collect, observe, learn, until the config's frames are spent.

        sync     collect frames_per_batch rows -> observe them -> learn updates_per_batch times -> yield
        async    wait for the rows -> observe them -> start on the next rows -> learn -> yield

    With `config.collector` "async" a thread collects the next rows while the learner learns, with the parameters from
    before it: the policy is one batch old, always, so that a seed gives the same run here, too. A loop that is left
    has collected a batch that nobody has seen: to go on from its state, collect from fresh environments. Make them with
    `make_vector_env(..., workers=True)`: in this process the two would slow each other.

    Args:
        agent: The pure functions.
        state: Their state, fresh or from an earlier loop, which then goes on where it stopped; consumed.
        collector: The environments.
        config: The run.
        group: The processes that train together, each with its share of the config's environments; all of them call
            this. None: this one alone.

    Yields:
        Progress after each batch; episodes are those of all processes.

    Raises:
        FloatingPointError: If an observation, a reward, a loss or a gradient is not finite.
        ProcessError: If another process has failed.
        ValueError: If the collector has another number of environments than this process's share of the config's.
    """
    group = group or ProcessGroup.alone()
    if collector.num_envs * group.count != config.num_envs:
        share = f" times {group.count} processes" if group.count > 1 else ""
        raise ValueError(f"num_envs {config.num_envs} is not the collector's {collector.num_envs}{share}: make it so")
    frames, updates = int(state.actor.frame), int(state.learner.num_updates)
    learning_start = learning_start_after(state, agent, config.num_envs)
    batches = range(frames // config.frames_per_batch, config.num_batches)

    def collect(actor: ActorState) -> tuple[ActorState, Rows, list[Episode]]:
        def act(obs: np.ndarray) -> np.ndarray:
            nonlocal actor
            actor, actions = agent.act(actor, obs)
            return np.asarray(actions)

        num_steps = config.frames_per_batch // config.num_envs
        rows, episodes = collector.collect(act, num_steps, frames=int(actor.frame))
        return actor, rows, episodes

    # XLA runs on the CPU what one thread dispatches in order: an `act` from this one would wait for the whole `learn`.
    with _ended_at_once(ThreadPoolExecutor(1, "collector")) as thread:
        ahead = thread.submit(collect, state.actor) if config.collector == "async" and batches else None
        for batch in batches:
            with group.exchange() as exchange:
                actor, rows, exchange.local = ahead.result() if ahead else collect(state.actor)
            episodes = gathered_episodes(exchange)
            newest = state.actor.params  # an actor that was ahead of the learner has older ones
            state = agent.observe(state._replace(actor=actor._replace(params=newest)), rows)
            if ahead and batch + 1 < config.num_batches:
                ahead = thread.submit(collect, state.actor)
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
def _ended_at_once(thread: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """The thread is waited for, unless a signal stops the run: an environment that hangs would never let it end."""
    waits = True
    try:
        yield thread
    except (KeyboardInterrupt, SystemExit):
        waits = False
        raise
    finally:
        thread.shutdown(wait=waits, cancel_futures=True)
