"""A whole run as pure functions: an agent and functional environments, collected and learned from in one program.

run = make_device_run(config)
state, metrics = jax.jit(run.train)(jax.random.key(0))       # one seed
states, metrics = jax.jit(jax.vmap(run.train))(keys)         # as many as there are keys
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from jaxdqn.agent import Agent, AgentState, make_agent
from jaxdqn.compilation import jit
from jaxdqn.config import Config
from jaxdqn.envs.device import functional_env
from jaxdqn.envs.functional import FunctionalEnv, State, random_rollout, vectorise
from jaxdqn.envs.rows import Cursor, Ended, advance, open_episodes
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.learner import Metrics
from jaxdqn.losses import Loss
from jaxdqn.preprocessing import ObservationStats, observation_stats
from jaxdqn.replay import refuse_what_does_not_fit, row_bytes, smallest_slots
from jaxdqn.returns import NStepReturn, n_step_return
from jaxdqn.schedules import warm_up_batches
from jaxdqn.types import Rows


class RunState(NamedTuple):
    """All that decides the future of a run.

    Attributes:
        agent: The agent's state.
        envs: The environments' states `[N, ...]`.
        cursor: Where the environments stand.
        key: Random key of the environments.
    """

    agent: AgentState
    envs: State
    cursor: Cursor
    key: Key[Array, ""]


class BatchTrace(NamedTuple):
    """What a batch leaves for the logs, with further leading axes for several.

    Attributes:
        ended: Episodes that ended `[T, N]`.
        metrics: Means over the batch's updates (`loss`, `gradient_norm`, `q_value`); NaN during warm-up.
    """

    ended: Ended
    metrics: Metrics


class DeviceRun(NamedTuple):
    """Pure functions over a `RunState`, made by `make_device_run`; each can be jitted, scanned and vmapped.

    Attributes:
        init: `(key) -> state`; the key is consumed.
        start: `(agent_state, key) -> state`: environments for an agent that is there already; the key is consumed.
        collect: `(state) -> (state, trace)`: `frames_per_batch` rows into replay, without learning from them.
        batch: `(state) -> (state, trace)`: `collect`, and then `updates_per_batch` updates.
        train: `(state) -> (state, trace [batches, ...])`: the whole run, from what `init` gives.
        agent: The agent's own functions.
        env: The environment.
        warm_up_batches: Batches of the run that are only collected.
    """

    init: Callable[[Key[Array, ""]], RunState]
    start: Callable[[AgentState, Key[Array, ""]], RunState]
    collect: Callable[[RunState], tuple[RunState, BatchTrace]]
    batch: Callable[[RunState], tuple[RunState, BatchTrace]]
    train: Callable[[RunState], tuple[RunState, BatchTrace]]
    agent: Agent
    env: FunctionalEnv
    warm_up_batches: int


def make_device_run(
    config: Config,
    *,
    env: FunctionalEnv | None = None,
    obs_stats: ObservationStats | None = None,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    returns: NStepReturn = n_step_return,
    num_seeds: int = 1,
    bytes_available: int | None = None,
) -> DeviceRun:
    """Bind a config and a functional environment into a run.

    Args:
        config: The run.
        env: The environment; None takes the functional twin of `config.env`.
        obs_stats: As `make_agent` has it; None plays a random rollout for pixels.
        network: As `make_agent` has it.
        optimizer: As `make_agent` has it.
        loss: As `make_agent` has it.
        returns: As `make_agent` has it.
        num_seeds: Runs that will be mapped side by side, each with a replay of its own.
        bytes_available: Memory that all their replays may take; None does not check.

    Raises:
        ValueError: If `config.env` has no functional twin, or as `make_agent` does.
    """
    env = functional_env(config.env, pixels=config.pixels, frame_size=config.frame_size) if env is None else env
    if obs_stats is None and config.pixels:
        obs_stats = rollout_stats_of(env, config)
    agent = make_agent(
        config,
        num_actions=int(env.action_space.n),
        obs_shape=env.observation_space.shape,
        obs_dtype=env.observation_space.dtype,
        obs_stats=obs_stats,
        network=network,
        optimizer=optimizer,
        loss=loss,
        returns=returns,
    )
    if bytes_available is not None:
        refuse_what_does_not_fit(
            config.capacity,
            config.num_envs,
            row_bytes(env.observation_space.shape, env.observation_space.dtype),
            bytes_available,
            smallest_slots(config.n_steps, config.frame_stack if config.pixels else 1) * config.num_envs,
            copies=num_seeds,
        )
    return bind_run(config, agent, env)


def rollout_stats_of(env: FunctionalEnv, config: Config) -> ObservationStats:
    """Statistics of `config.normalisation_frames` frames of a random policy on a functional environment."""
    key = jax.random.key(spawn_seeds(config.seed, 1, Purpose.STATISTICS)[0])
    stacks = random_rollout(env, key, frames=config.normalisation_frames, frame_stack=config.frame_stack)
    return observation_stats(stacks)


def bind_run(config: Config, agent: Agent, env: FunctionalEnv) -> DeviceRun:
    """The run of an agent that is made already."""
    envs = vectorise(env, config.num_envs)
    stack = config.frame_stack if config.pixels else None
    not_learned = {name: jnp.full((), jnp.nan) for name in ("loss", "gradient_norm", "q_value")}
    warm_up = warm_up_batches(config)
    obs_dtype = np.uint8 if env.observation_space.dtype == np.uint8 else np.float32

    def start(state: AgentState, key: Key[Array, ""]) -> RunState:
        reset_key, key = jax.random.split(key)
        states, obs = envs.reset(reset_key)
        cursor = open_episodes(obs.astype(obs_dtype), stack)
        # In a buffer of its own also where nothing is stacked: the whole state is donated, and no buffer twice.
        return RunState(state, states, cursor._replace(stack=jnp.copy(cursor.stack)), key)

    def init(key: Key[Array, ""]) -> RunState:
        agent_key, env_key = jax.random.split(key)
        return start(agent.init(agent_key), env_key)

    def step(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], tuple[Rows, Ended]]:
        actor, states, cursor, key = carry
        key, step_key = jax.random.split(key)
        actor, actions = agent.act(actor, cursor.stack)
        states, answer = envs.step(step_key, states, cursor.last, actions)
        answer = answer._replace(obs=answer.obs.astype(obs_dtype))
        row, cursor, ended = advance(cursor, actions, answer, frame_stack=stack, reward_scale=config.reward_scale)
        return (actor, states, cursor, key), (row, ended)

    def collect(state: RunState) -> tuple[RunState, BatchTrace]:
        carry = state.agent.actor, state.envs, state.cursor, state.key
        num_steps = config.frames_per_batch // config.num_envs
        (actor, states, cursor, key), (rows, ended) = jax.lax.scan(step, carry, length=num_steps)
        observed = agent.observe(state.agent._replace(actor=actor), rows)
        return RunState(observed, states, cursor, key), BatchTrace(ended, not_learned)

    def batch(state: RunState) -> tuple[RunState, BatchTrace]:
        state, trace = collect(state)
        learned, metrics = agent.learn(state.agent)
        return state._replace(agent=learned), trace._replace(metrics=jax.tree.map(jnp.mean, metrics))

    def train(state: RunState) -> tuple[RunState, BatchTrace]:
        # Two phases and no `cond` within one: under `vmap` it would become a `select`, which copies the ring.
        state, first = jax.lax.scan(lambda state, _: collect(state), state, length=warm_up)
        state, rest = jax.lax.scan(lambda state, _: batch(state), state, length=config.num_batches - warm_up)
        return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), first, rest)

    return DeviceRun(jit(init), jit(start), collect, batch, train, agent, env, warm_up)
