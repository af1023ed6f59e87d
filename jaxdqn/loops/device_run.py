"""A whole run as pure functions: an agent and functional environments, collecting and learning in one program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key

from jaxdqn.agent.agent import Agent, AgentState
from jaxdqn.compilation import jit
from jaxdqn.config import Config
from jaxdqn.envs.functional.env import FunctionalEnv, State, vectorise
from jaxdqn.envs.rows import EnvCursor, EpisodeEnds, advance
from jaxdqn.learner import Metrics
from jaxdqn.observations import ObsSpec
from jaxdqn.schedules import warm_up_batches
from jaxdqn.types import Rows


class RunState(NamedTuple):
    """The complete state of a run.

    Attributes:
        agent: The agent's state.
        envs: The environments' states `[N, ...]`.
        cursor: The last observations, and the position within the open episodes.
        key: Random key of the environments.
    """

    agent: AgentState
    envs: State
    cursor: EnvCursor
    key: Key[Array, ""]


class BatchTrace(NamedTuple):
    """The outputs of a batch for the logs; several batches have a further leading axis.

    Attributes:
        ended: Episodes that ended `[T, N]`.
        finite: Whether `reward` and the next `observation` are finite `[T, N]`; also `image`, the image that the
            observation was made of, if the observation is bytes, which cannot be NaN.
        metrics: Means over the batch's updates (`loss`, `gradient_norm`, `q_value`); empty for a batch without
            updates. Those of a whole run start after its `warm_up_batches`.
    """

    ended: EpisodeEnds
    finite: dict[str, Bool[Array, "*T N"]]
    metrics: Metrics


class DeviceRun(NamedTuple):
    """Pure functions over a `RunState`, made by `make_device_run`; each can be jitted, scanned and vmapped.

    Attributes:
        init: `(key) -> state`; the key is consumed.
        start: `(agent_state, key) -> state`: resets environments for an existing agent, whose ring is not copied but
            becomes part of the state; the key is consumed.
        collect: `(state) -> (state, trace)`: adds `frames_per_batch` rows to replay, without learning.
        batch: `(state) -> (state, trace)`: `collect`, then `updates_per_batch` updates.
        train: `(state) -> (state, trace [batches, ...])`: the whole run, from a state of `init`; the trace's metrics
            have length `batches - warm_up_batches`.
        agent: The agent's functions.
        env: The environment, whose observations have the form that replay stores.
        obs: The specification of the observations.
        warm_up_batches: Batches at the start of the run that are only collected.
    """

    init: Callable[[Key[Array, ""]], RunState]
    start: Callable[[AgentState, Key[Array, ""]], RunState]
    collect: Callable[[RunState], tuple[RunState, BatchTrace]]
    batch: Callable[[RunState], tuple[RunState, BatchTrace]]
    train: Callable[[RunState], tuple[RunState, BatchTrace]]
    agent: Agent
    env: FunctionalEnv
    obs: ObsSpec
    warm_up_batches: int


def bind_run(config: Config, agent: Agent, env: FunctionalEnv, obs: ObsSpec) -> DeviceRun:
    """Return the run of an existing agent, on an environment from `with_observations`."""
    envs = vectorise(env, config.num_envs)
    stack = obs.stack
    warm_up = warm_up_batches(config, stack=stack or 1)

    rules: dict[str, Any] = {
        "frame_stack": stack,
        "reward_scale": config.reward_scale,
        "clip_rewards": config.clip_rewards,
    }

    @jit
    def open_envs(key: Key[Array, ""]) -> tuple[State, EnvCursor, Key[Array, ""]]:
        reset_key, key = jax.random.split(key)
        states, obs = envs.reset(reset_key)
        cursor = envs.open(states, obs, stack)
        return states, cursor._replace(stack=jnp.copy(cursor.stack)), key

    def start(state: AgentState, key: Key[Array, ""]) -> RunState:
        # The whole state will be donated, and a buffer can be donated only once: copy what may share buffers, which
        # the ring does not.
        learner, actor, sampling_key = jax.tree.map(jnp.copy, (state.learner, state.actor, state.key))
        return RunState(AgentState(learner, state.replay, actor, sampling_key), *open_envs(key))

    def init(key: Key[Array, ""]) -> RunState:
        agent_key, env_key = jax.random.split(key)
        return start(agent.init(agent_key), env_key)

    def step(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], tuple[Rows, EpisodeEnds, dict[str, Any]]]:
        actor, states, cursor, key = carry
        key, step_key = jax.random.split(key)
        actor, actions = agent.act(actor, *cursor.seen)
        states, step_result = envs.step(step_key, states, cursor.last, actions)
        row, cursor, ended = advance(cursor, actions, step_result, **rules)
        values = jnp.isfinite(step_result.obs).reshape(config.num_envs, -1).all(axis=1)
        finite = {"reward": jnp.isfinite(row.reward), "observation": values}
        if env.valid is not None:
            finite["image"] = jnp.asarray(step_result.valid)
        return (actor, states, cursor, key), (row, ended, finite)

    def collect(state: RunState) -> tuple[RunState, BatchTrace]:
        carry = state.agent.actor, state.envs, state.cursor, state.key
        num_steps = config.frames_per_batch // config.num_envs
        (actor, states, cursor, key), (rows, ended, finite) = jax.lax.scan(step, carry, length=num_steps)
        observed = agent.observe(state.agent._replace(actor=actor), rows)
        return RunState(observed, states, cursor, key), BatchTrace(ended, finite, {})

    def batch(state: RunState) -> tuple[RunState, BatchTrace]:
        state, trace = collect(state)
        learned, metrics = agent.learn(state.agent)
        return state._replace(agent=learned), trace._replace(metrics=jax.tree.map(jnp.mean, metrics))

    def train(state: RunState) -> tuple[RunState, BatchTrace]:
        # Two scans instead of one with a `cond`: under `vmap` a `cond` becomes a `select`, which copies the ring.
        state, first = jax.lax.scan(lambda state, _: collect(state), state, length=warm_up)
        state, rest = jax.lax.scan(lambda state, _: batch(state), state, length=config.num_batches - warm_up)
        # Batches without updates have no metrics: with NaN as a placeholder, JAX_DEBUG_NANS=1 would stop the program.
        ended, finite = jax.tree.map(lambda *parts: jnp.concatenate(parts), first[:2], rest[:2])
        return state, BatchTrace(ended, finite, rest.metrics)

    return DeviceRun(jit(init), start, collect, batch, train, agent, env, obs, warm_up)
