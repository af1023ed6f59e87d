"""Put a run together: its replay's capacity, its agent, and on the device the whole run as pure functions.

run = make_device_run(config)
state, trace = jaxdqn.jit(run.train, donate_argnums=0)(run.init(key))                          # one seed
states, traces = jaxdqn.jit(jax.vmap(run.train), donate_argnums=0)(jax.vmap(run.init)(keys))   # one for each key
"""

from __future__ import annotations

import dataclasses
from typing import Any, Unpack

import jax

from jaxdqn.agent.make_agent import AgentPieces
from jaxdqn.agent.state import Agent
from jaxdqn.config import Config
from jaxdqn.envs.functional.env import FunctionalEnv, random_rollout
from jaxdqn.envs.functional_by_id import functional_env, with_observations
from jaxdqn.envs.registry import functional_ids
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.loops.device_run import DeviceRun, bind_run
from jaxdqn.observations import ObsSpec, stats_frames, stats_of
from jaxdqn.parallel.mesh import part_of
from jaxdqn.parallel.parallel_agent import agent_of
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.replay.capacity import check_capacity, with_capacity
from jaxdqn.storage.free_memory import FreeMemory, free_bytes


def assemble(
    config: Config,
    *,
    num_actions: int,
    obs: ObsSpec,
    obs_stats: ObservationStats | None,
    env: FunctionalEnv | None,
    free: FreeMemory,
    num_seeds: int = 1,
    num_processes: int = 1,
    axis_name: str | None = None,
    **pieces: Unpack[AgentPieces],
) -> tuple[Agent, DeviceRun | None]:
    """Make the agent of a run and, with a functional environment, the whole run as pure functions.

    Args:
        config: The run.
        num_actions: Number of discrete actions.
        obs: Spec of the observations.
        obs_stats: See `make_agent`. None plays a random rollout on `env` if the config needs statistics of images.
        env: An environment from `with_observations`; None for a run with environments on the host.
        free: Memory that replay may use.
        num_seeds: Number of runs that will be vmapped together, each with its own replay.
        num_processes: Number of processes that train together. The run is then this process's share.
        axis_name: See `make_agent`.
        pieces: See `make_agent`.

    Raises:
        ValueError: If replay does not fit where `config.replay_storage` says; also see `make_agent`.
    """
    config = with_capacity(config, obs, free.for_obs, num_seeds)
    check_capacity(config, obs, free.for_obs, num_seeds)
    if obs_stats is None and env is not None and stats_frames(config, obs):
        obs_stats = rollout_stats_of(env, config, obs)
    agent = agent_of(
        config,
        num_actions=num_actions,
        obs=obs,
        obs_stats=obs_stats,
        bytes_available=free.on_device // num_seeds,
        num_processes=num_processes,
        axis_name=axis_name,
        **pieces,
    )
    share = config if num_processes == 1 else part_of(config, num_processes)
    return agent, None if env is None else bind_run(share, agent, env, obs)


def make_device_run(
    config: Config,
    *,
    env: FunctionalEnv | None = None,
    obs_stats: ObservationStats | None = None,
    num_seeds: int = 1,
    bytes_available: int | None = None,
    axis_name: str | None = None,
    **pieces: Unpack[AgentPieces],
) -> DeviceRun:
    """Bind a config and a functional environment into a run.

    The key of `init` determines all randomness of a run, except the random rollout behind `obs_stats`: that uses
    `config.seed`, and runs that are vmapped together share it.

    Args:
        config: The run's config. Symmetries of another environment's images (`symmetries_of`) are ignored.
        env: The environment; None takes the functional form of `config.env`.
        obs_stats: See `assemble`.
        num_seeds: Number of runs that will be vmapped together, each with its own replay.
        bytes_available: Memory that all replays together may take; None takes the free memory of the config's devices
            together. With `axis_name` it assumes that each device of this process holds a part. If several processes
            share a machine, pass what this process may take.
        axis_name: See `make_agent`. Each device then has a part of the run, whose functions need that axis.
        pieces: Your own network, optimizer, loss or returns; see `make_agent`.

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
    if bytes_available is None:
        parts = config.num_devices if axis_name is None else jax.local_device_count()
        bytes_available = free_bytes(parts) * config.num_devices
    _, run = assemble(
        config,
        num_actions=int(env.action_space.n),
        obs=obs,
        obs_stats=obs_stats,
        env=env,
        free=FreeMemory(bytes_available // config.num_devices, bytes_available),
        num_seeds=num_seeds,
        axis_name=axis_name,
        **pieces,
    )
    assert run is not None  # there is a functional environment
    return run


def env_of(config: Config) -> FunctionalEnv:
    """Return the functional form of the config's environment."""
    return functional_env(config.env, pixels=config.pixels, frame_size=config.frame_size)


def rollout_stats_of(env: FunctionalEnv, config: Config, obs: ObsSpec) -> ObservationStats:
    """Return statistics of `stats_frames` images, which a random policy collects on a functional environment."""
    key = jax.random.key(spawn_seeds(config.seed, 1, Purpose.STATISTICS)[0])
    stacks = random_rollout(env, key, frames=stats_frames(config, obs), frame_stack=obs.stack)
    return stats_of(stacks, obs)
