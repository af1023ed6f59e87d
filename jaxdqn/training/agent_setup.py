"""Set up a run: the spec of its environment, the agent, and its initial state."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import gymnasium as gym
import jax
import numpy as np
import optax

from jaxdqn.agent import Agent, AgentState
from jaxdqn.checkpoints.agent_files import AgentSpec
from jaxdqn.config import Config
from jaxdqn.envs.functional.env import FunctionalEnv
from jaxdqn.envs.functional_by_id import functional_env, functional_form, with_observations
from jaxdqn.envs.gymnasium.wrappers import name_of, spec_of_env
from jaxdqn.frame_store import FrameStore, check_store
from jaxdqn.learner import Params
from jaxdqn.loops.device_run import DeviceRun, bind_run, rollout_stats_of
from jaxdqn.losses import Loss
from jaxdqn.multi_device import agent_of, share_of
from jaxdqn.normalisation import put_obs_stats
from jaxdqn.observations import ObsSpec, stats_frames
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.replay import smallest_slots
from jaxdqn.returns import NStepReturn, n_step_return
from jaxdqn.schedules import with_capacity
from jaxdqn.storage.free_memory import ALONE, Sharing, free_bytes, free_disk_bytes, free_host_bytes
from jaxdqn.training.obs_stats import RolloutAhead, rollout_stats


class RunSetup(NamedTuple):
    """An agent and its initial state, ready to be trained.

    Attributes:
        spec: Actions and observations of the environment.
        agent: The pure functions.
        state: Their initial state.
        run: With loop "device": the agent combined with its functional environments; otherwise None.
    """

    spec: AgentSpec
    agent: Agent
    state: AgentState
    run: DeviceRun | None

    @property
    def stack(self) -> int | None:
        """Frames in a stack; None for vectors."""
        return self.spec.obs.stack


def inspect_env(env: gym.Env, frame_stack: int | None = None) -> AgentSpec:
    """Return the number of actions and the observations of an environment.

    Args:
        env: An environment that `make_env_fn` has built.
        frame_stack: Frames in a stack; see `Config`.
    """
    assert isinstance(env.action_space, gym.spaces.Discrete)  # `make_env_fn` has checked it
    return AgentSpec(int(env.action_space.n), spec_of_env(env, frame_stack))


class FreeMemory(NamedTuple):
    """Memory that replay may use, measured before any process of the run has used it.

    Attributes:
        on_device: Bytes free on each device.
        for_obs: Bytes free where observations will be stored, for the whole run.
    """

    on_device: int
    for_obs: int


def free_memory(config: Config, sharing: Sharing = ALONE) -> FreeMemory:
    """Measure the memory that is free for a run; `sharing` says which of its processes share this one's memory."""
    per_device = free_bytes(config.num_devices, sharing)
    if config.replay_storage == "device":
        return FreeMemory(per_device, per_device * config.num_devices * jax.process_count())
    for_obs = free_disk_bytes(config.output) if config.replay_storage == "disk" else free_host_bytes()
    return FreeMemory(per_device, for_obs)


def planned_capacity(config: Config, spec: AgentSpec, free: FreeMemory) -> int:
    """Return the rows that replay will hold: the config's, or the whole run if this machine's memory or disk allow."""
    return with_capacity(config, spec.obs, free.for_obs).planned_capacity


def make_setup(
    config: Config,
    env: gym.Env,
    spec: AgentSpec,
    *,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    returns: NStepReturn | None = None,
    rollout: RolloutAhead | None = None,
    own_env: bool = False,
    fresh: bool = True,
    free: FreeMemory | None = None,
) -> RunSetup:
    """Make an agent for an environment.

    Args:
        config: The run.
        env: One environment that `make_env_fn` has built.
        spec: The result of `inspect_env` for it.
        network: See `make_agent`.
        optimizer: See `make_agent`.
        loss: See `make_agent`.
        returns: See `make_agent`; None: `n_step_return`.
        rollout: A random rollout of `config.env` that has already started; None plays it here.
        own_env: Whether `env` is the user's own environment and not `config.env`.
        fresh: Whether this process must compute the statistics of frames. If not, no rollout is played: the state on
            disk, or that of the first process, replaces them.
        free: Memory that replay may use; None measures it, for a process that shares it with no other.

    Raises:
        ValueError: If the environment or the sizes cannot be used.
    """
    obs, functional, free = spec.obs, None, free or free_memory(config)
    if config.loop == "device":
        functional = _functional_form(config, env, spec, own_env)
    channels = obs.seen_shape[-1] if stats_frames(config, obs) else 0
    agent = agent_of(
        config,
        num_processes=jax.process_count(),
        num_actions=spec.num_actions,
        obs=obs,
        obs_stats=ObservationStats(np.zeros(channels), np.ones(channels)) if channels else None,  # replaced below
        network=network,
        optimizer=optimizer,
        loss=loss,
        returns=n_step_return if returns is None else returns,
        bytes_available=free.on_device,
    )
    if config.replay_storage != "device":
        smallest = smallest_slots(config.n_steps, obs.stack or 1) * config.num_envs
        where = "disk" if config.replay_storage == "disk" else "memory"
        check_store(**store_sizes(config, spec), bytes_available=free.for_obs, where=where, smallest=smallest)
    if fresh:
        state = initial_state(agent, config, obs, functional or env, rollout)
    else:
        state = agent.init(jax.random.key(config.seed))
    run = None if functional is None else bind_run(share_of(config), agent, functional, obs)
    return RunSetup(spec, agent, state, run)


def _functional_form(config: Config, env: gym.Env, spec: AgentSpec, own_env: bool) -> FunctionalEnv:
    """Return the functional form of an environment; raise `ValueError` if it has none, or its observations differ."""
    seen: dict[str, Any] = {"pixels": spec.obs.is_image, "frame_size": config.frame_size}
    found = functional_form(env) if own_env else functional_env(config.env, **seen)
    functional, obs = with_observations(found, **seen, colour=config.colour, frame_stack=spec.obs.stack)
    if obs != spec.obs:
        raise ValueError(
            f"env {name_of(env)} has observations {obs.shape} on the device and {spec.obs.shape} in gymnasium: set "
            "pixels, frame_size and colour so that both are the same, or use --loop host"
        )
    return functional


def store_sizes(config: Config, spec: AgentSpec) -> dict[str, Any]:
    """Return the arguments of `FrameStore` that set its size."""
    fields = {"capacity": config.planned_capacity, "num_envs": config.num_envs}
    return {**fields, "obs_shape": spec.obs.shape, "obs_dtype": spec.obs.dtype}


def make_store(folder: Path, config: Config, spec: AgentSpec) -> FrameStore:
    """Make the store of a run's frames, in the host's memory or in a file in the run's folder."""
    path = folder / "replay.npy" if config.replay_storage == "disk" else None
    if path is not None:
        path.unlink(missing_ok=True)  # left by a process that was killed before it unlinked the open file
    return FrameStore(**store_sizes(config, spec), path=path)


def initial_state(
    agent: Agent,
    config: Config,
    obs: ObsSpec,
    env: gym.Env | FunctionalEnv,
    rollout: RolloutAhead | None = None,
) -> AgentState:
    """Return an agent's initial state, with the statistics of a random rollout if the config asks for them.

    The rollout is played, or waited for, while another thread compiles.
    """
    key = jax.random.key(config.seed)
    if not stats_frames(config, obs):
        return agent.init(key)

    if isinstance(env, FunctionalEnv):
        return _with_obs_stats(agent.init(key), rollout_stats_of(env, config, obs))

    def prepare() -> AgentState:
        state = agent.init(key)
        agent.compile(state)
        return state

    with ThreadPoolExecutor(1, "compiler") as thread:
        prepared = thread.submit(prepare)
        stats = (rollout and rollout.result()) or rollout_stats(env, config)
        return _with_obs_stats(prepared.result(), stats)


def _with_obs_stats(state: AgentState, obs_stats: ObservationStats) -> AgentState:
    """Return a fresh state with these statistics in place of those that the agent was made with."""
    learner, actor = state.learner, state.actor

    def replace_stats(params: Params) -> Params:
        new = put_obs_stats(params, obs_stats)
        return jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), new, params)

    params, target_params, acting = map(replace_stats, (learner.params, learner.target_params, actor.params))
    learner = learner._replace(params=params, target_params=target_params)
    return state._replace(learner=learner, actor=actor._replace(params=acting))
