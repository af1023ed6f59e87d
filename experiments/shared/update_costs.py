"""The cost of learning with each algorithm, relative to plain DQN's: seconds, and XLA's count of operations."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxdqn
from jaxdqn.agent.agent import Agent, AgentState
from jaxdqn.config import Config
from jaxdqn.types import Rows


class Cost(NamedTuple):
    """The cost of one algorithm's updates, relative to another's.

    Attributes:
        time: Median ratio of the seconds, over rounds in which both were timed one after the other.
        operations: Ratio of the floating point operations.
    """

    time: float
    operations: float


def filled(agent: Agent, config: Config, obs: jaxdqn.ObsSpec, num_actions: int) -> AgentState:
    """Return an agent's state with a full ring of random rows, in episodes of 200 steps."""
    state, rng = agent.init(jax.random.key(0)), np.random.default_rng(0)
    slots = config.planned_capacity // config.num_envs
    length = min(slots, 500)
    shape = (length, config.num_envs)
    values = rng.integers(0, 256, (*shape, *obs.shape), np.uint8)
    dtype = np.dtype(obs.dtype)
    values = values if dtype == np.uint8 else (values / 256).astype(dtype)
    for first in range(0, slots, length):
        step = np.broadcast_to((first + np.arange(length))[:, None] % 201, shape).astype(np.int32)
        rows = Rows(
            obs=values,
            action=rng.integers(0, num_actions, shape, np.int32),
            reward=rng.normal(size=shape).astype(np.float32),
            terminated=step == 199,
            last=step == 200,
            episode_step=step,
        )
        state = agent.observe(state, rows)
    return state


def learning_of(config: Config, obs: jaxdqn.ObsSpec, num_actions: int) -> Callable[[], Any]:
    """Return a function that samples and updates as often as a run does after each batch."""
    channels = obs.stack or 1
    stats = jaxdqn.ObservationStats(np.full(channels, 0.5), np.full(channels, 0.3)) if obs.is_image else None
    agent = jaxdqn.make_agent(config, num_actions=num_actions, obs=obs, obs_stats=stats)
    state = filled(agent, config, obs, num_actions)

    def learn() -> Any:
        nonlocal state
        state, metrics = agent.learn(state)
        return metrics

    return learn


def operations_of(config: Config, obs: jaxdqn.ObsSpec, num_actions: int) -> float:
    """Return XLA's count of the floating point operations of one update."""
    config = dataclasses.replace(config, updates_per_batch=1, capacity=max(config.batch_size, 1000))
    agent = jaxdqn.make_agent(config, num_actions=num_actions, obs=obs)
    state = agent.init(jax.random.key(0))
    samples = jax.eval_shape(agent.sample, state.replay, jax.random.key(0))
    keys = jax.random.split(jax.random.key(0), 1)
    return agent.update.lower(state.learner, samples, keys).cost_analysis()["flops"]  # type: ignore[attr-defined]


def costs(configs: Mapping[str, Config], obs: jaxdqn.ObsSpec, num_actions: int, rounds: int) -> dict[str, Cost]:
    """Return the cost of each config's updates relative to the first's; each is timed in turn, in every round."""
    learn = {name: learning_of(config, obs, num_actions) for name, config in configs.items()}
    ratios = time_ratios(learn, rounds)
    operations = {name: operations_of(config, obs, num_actions) for name, config in configs.items()}
    first = operations[next(iter(configs))]
    return {name: Cost(ratios[name], operations[name] / first) for name in configs}


def time_ratios(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median over rounds of each function's time divided by the first function's in the same round."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds + 1):
        seconds = {name: _seconds(call) for name, call in calls.items()}
        if index:  # the first call compiles
            for name in calls:
                found[name].append(seconds[name] / next(iter(seconds.values())))
    return {name: statistics.median(values) for name, values in found.items()}


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started
