"""A whole run as pure functions: an agent and functional environments, collecting and learning in one program.

run = make_device_run(config)
state, trace = jaxdqn.jit(run.train, donate_argnums=0)(run.init(key))                          # one seed
states, traces = jaxdqn.jit(jax.vmap(run.train), donate_argnums=0)(jax.vmap(run.init)(keys))   # one for each key
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Key

from jaxdqn.agent import Agent, AgentState
from jaxdqn.compilation import jit
from jaxdqn.config import Config
from jaxdqn.envs.functional.env import FunctionalEnv, State, random_rollout, vectorise
from jaxdqn.envs.functional_by_id import functional_env, with_observations
from jaxdqn.envs.registry import functional_ids
from jaxdqn.envs.rows import EnvCursor, EpisodeEnds, advance, open_episodes
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.learner import Metrics
from jaxdqn.losses import Loss
from jaxdqn.multi_device import agent_of
from jaxdqn.observations import ObsSpec, stats_frames, stats_of
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.replay import check_fits, row_bytes, smallest_slots
from jaxdqn.returns import NStepReturn, n_step_return
from jaxdqn.schedules import warm_up_batches, with_capacity
from jaxdqn.storage.free_memory import free_bytes
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
    axis_name: str | None = None,
) -> DeviceRun:
    """Bind a config and a functional environment into a run.

    The key of `init` determines all randomness of a run, except the random rollout behind `obs_stats`: that uses
    `config.seed`, and runs that are vmapped together share it.

    Args:
        config: The run's config. Symmetries of another environment's images (`symmetries_of`) are ignored.
        env: The environment; None takes the functional form of `config.env`.
        obs_stats: See `make_agent`. None plays a random rollout if the config needs statistics of images.
        network: See `make_agent`.
        optimizer: See `make_agent`.
        loss: See `make_agent`.
        returns: See `make_agent`.
        num_seeds: Number of runs that will be vmapped together, each with its own replay.
        bytes_available: Memory that all replays together may take; None takes the free memory of the config's devices
            together. With `axis_name` it assumes that each device of this process holds a part. If several processes
            share a machine, pass what this process may take.
        axis_name: See `make_agent`. Each device then has a part of the run, whose functions need that axis.

    Raises:
        ValueError: If `config.env` has no functional form, the environment or the config cannot be used on the device,
            or the replays do not fit; also see `make_agent`.
    """
    if num_seeds < 1:
        raise ValueError(f"num_seeds {num_seeds} must be at least 1")
    config = dataclasses.replace(config, loop="device")  # raises for settings that need the host
    own_env = env is not None and (config.env not in functional_ids() or env != env_of(config))
    if config.has_foreign_symmetries(own_env):
        config = config.without_symmetries()
    seen: dict[str, Any] = {"pixels": config.pixels, "frame_size": config.frame_size, "colour": config.colour}
    env, obs = with_observations(env_of(config) if env is None else env, **seen, frame_stack=config.frame_stack)
    free = bytes_available
    if free is None:
        parts = config.num_devices if axis_name is None else jax.local_device_count()
        free = free_bytes(parts) * config.num_devices
    config = with_capacity(config, obs, free, copies=num_seeds)
    check_fits(
        config.planned_capacity,
        config.num_envs,
        row_bytes(obs.shape, np.dtype(obs.dtype)),
        free,
        smallest_slots(config.n_steps, obs.stack or 1) * config.num_envs,
        copies=num_seeds,
    )
    if obs_stats is None and stats_frames(config, obs):
        obs_stats = rollout_stats_of(env, config, obs)
    agent = agent_of(
        config,
        num_actions=int(env.action_space.n),
        obs=obs,
        obs_stats=obs_stats,
        network=network,
        optimizer=optimizer,
        loss=loss,
        returns=returns,
        axis_name=axis_name,
    )
    return bind_run(config, agent, env, obs)


def env_of(config: Config) -> FunctionalEnv:
    """Return the functional form of the config's environment."""
    return functional_env(config.env, pixels=config.pixels, frame_size=config.frame_size)


def rollout_stats_of(env: FunctionalEnv, config: Config, obs: ObsSpec) -> ObservationStats:
    """Return statistics of `stats_frames` images, which a random policy collects on a functional environment."""
    key = jax.random.key(spawn_seeds(config.seed, 1, Purpose.STATISTICS)[0])
    stacks = random_rollout(env, key, frames=stats_frames(config, obs), frame_stack=obs.stack)
    return stats_of(stacks, obs)


def bind_run(config: Config, agent: Agent, env: FunctionalEnv, obs: ObsSpec) -> DeviceRun:
    """Return the run of an existing agent, on an environment from `with_observations`."""
    envs = vectorise(env, config.num_envs)
    stack = obs.stack
    warm_up = warm_up_batches(config, stack=stack or 1)

    @jit
    def open_envs(key: Key[Array, ""]) -> tuple[State, EnvCursor, Key[Array, ""]]:
        reset_key, key = jax.random.split(key)
        states, obs = envs.reset(reset_key)
        cursor = open_episodes(obs, stack)
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
        actor, actions = agent.act(actor, cursor.stack)
        states, step_result = envs.step(step_key, states, cursor.last, actions)
        row, cursor, ended = advance(cursor, actions, step_result, frame_stack=stack, reward_scale=config.reward_scale)
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
