"""How a run begins: what the environment tells, the agent, and its first state."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import gymnasium as gym
import jax
import numpy as np
import optax

from jaxdqn.agent import Agent, AgentState
from jaxdqn.config import Config
from jaxdqn.envs.device import functional_within
from jaxdqn.envs.functional import FunctionalEnv
from jaxdqn.envs.pixels import EnvFn
from jaxdqn.envs.rows import held_dtype
from jaxdqn.learner import Params
from jaxdqn.losses import Loss
from jaxdqn.normalisation import put_obs_stats
from jaxdqn.parallel import agent_of, share_of
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.replay import smallest_slots
from jaxdqn.run.checkpoint import AgentSpec
from jaxdqn.run.device_run import DeviceRun, bind_run, env_of, rollout_stats_of
from jaxdqn.run.frame_store import FrameStore, check_store
from jaxdqn.run.resources import free_bytes, free_disk_bytes, free_host_bytes
from jaxdqn.run.rollout import RolloutAhead, rollout_stats


class Assembled(NamedTuple):
    """An agent that can be trained.

    Attributes:
        spec: What the environment told.
        agent: The pure functions.
        state: Their first state.
        stack: Frames to a stack; None for vectors.
        run: With loop "device", the agent and its functional environments as one.
    """

    spec: AgentSpec
    agent: Agent
    state: AgentState
    stack: int | None
    run: DeviceRun | None


def assemble(
    config: Config,
    build: EnvFn,
    *,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    rollout: RolloutAhead | None = None,
    own_env: bool = False,
    fresh: bool = True,
) -> Assembled:
    """Look at an environment and make an agent for it.

    Args:
        config: The run.
        build: Builds one environment, checked (`make_env_fn`).
        network: As `make_agent` has it.
        optimizer: As `make_agent` has it.
        loss: As `make_agent` has it.
        rollout: A random rollout of `config.env` that has begun already; None plays it here.
        own_env: Whether `build` gives the user's own environment and not `config.env`.
        fresh: Whether this process's statistics of frames are the ones that count; else no rollout is played, as the
            state on disk, or the first process's, takes their place.

    Raises:
        ValueError: If the environment or the sizes cannot be used.
    """
    with contextlib.closing(build()) as env:
        spec = look_at_env(env)
        twin = None
        if config.loop == "device":
            twin = functional_within(env) if own_env else env_of(config)
        stack = config.frame_stack if config.pixels else None
        agent = agent_of(
            config,
            num_processes=jax.process_count(),
            num_actions=spec.num_actions,
            obs_shape=spec.obs_shape,
            obs_dtype=spec.obs_dtype,
            obs_stats=None if stack is None else ObservationStats(np.zeros(stack), np.ones(stack)),  # replaced below
            network=network,
            optimizer=optimizer,
            loss=loss,
            bytes_available=free_bytes(),
        )
        if config.replay_storage != "device":
            smallest = smallest_slots(config.n_steps, stack or 1) * config.num_envs
            on_disk = config.replay_storage == "disk"
            free = free_disk_bytes(config.output) if on_disk else free_host_bytes()
            where = "disk" if on_disk else "memory"
            check_store(**store_sizes(config, spec), bytes_available=free, where=where, smallest=smallest)
        state = initial_state(agent, config, twin or env, rollout) if fresh else agent.init(jax.random.key(config.seed))
        return Assembled(spec, agent, state, stack, None if twin is None else bind_run(share_of(config), agent, twin))


def store_sizes(config: Config, spec: AgentSpec) -> dict[str, Any]:
    """The arguments of `FrameStore` that say how much it holds."""
    fields = {"capacity": config.capacity, "num_envs": config.num_envs}
    return {**fields, "obs_shape": spec.obs_shape, "obs_dtype": spec.obs_dtype}


def make_store(folder: Path, config: Config, spec: AgentSpec) -> FrameStore:
    """The store of a run's frames, in the host's memory or in a file of the run's folder."""
    path = folder / "replay.npy" if config.replay_storage == "disk" else None
    if path is not None:
        path.unlink(missing_ok=True)  # of a process that was killed before the file lost its name
    return FrameStore(**store_sizes(config, spec), path=path)


def look_at_env(env: gym.Env) -> AgentSpec:
    """What an environment tells the agent."""
    observations, actions = env.observation_space, env.action_space
    assert isinstance(observations, gym.spaces.Box)  # as `make_env_fn` has checked
    assert isinstance(actions, gym.spaces.Discrete)
    return AgentSpec(int(actions.n), observations.shape, held_dtype(observations.dtype).name)


def initial_state(
    agent: Agent, config: Config, env: gym.Env | FunctionalEnv, rollout: RolloutAhead | None = None
) -> AgentState:
    """An agent's first state; for pixels with the statistics of a random rollout.

    It is played, or waited for, while another thread compiles.
    """
    key = jax.random.key(config.seed)
    if not config.pixels:
        return agent.init(key)

    if isinstance(env, FunctionalEnv):
        return _with_obs_stats(agent.init(key), rollout_stats_of(env, config))

    def prepare() -> AgentState:
        state = agent.init(key)
        agent.compile(state)
        return state

    with ThreadPoolExecutor(1, "compiler") as thread:
        prepared = thread.submit(prepare)
        stats = (rollout and rollout.result()) or rollout_stats(env, config)
        return _with_obs_stats(prepared.result(), stats)


def _with_obs_stats(state: AgentState, obs_stats: ObservationStats) -> AgentState:
    """A fresh state with other statistics than the agent was made with."""
    learner, actor = state.learner, state.actor

    def put(params: Params) -> Params:
        new = put_obs_stats(params, obs_stats)
        return jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), new, params)

    params, target_params, acting = map(put, (learner.params, learner.target_params, actor.params))
    learner = learner._replace(params=params, target_params=target_params)
    return state._replace(learner=learner, actor=actor._replace(params=acting))
