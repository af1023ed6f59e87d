"""Put a run together: the capacity of its replay, its agent and, on the device, the whole run as pure functions.

run = make_device_run(config)
state, trace = jaxdqn.jit(run.train, donate_argnums=0)(run.init(key))                          # one seed
states, traces = jaxdqn.jit(jax.vmap(run.train), donate_argnums=0)(jax.vmap(run.init)(keys))   # one for each key
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import optax

from jaxdqn.agent.agent import Agent
from jaxdqn.agent.overrides import AgentOverrides
from jaxdqn.config import Config
from jaxdqn.envs.functional.env import FunctionalEnv, random_rollout
from jaxdqn.envs.functional_by_id import functional_env, with_observations
from jaxdqn.envs.registry import functional_ids
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.loops.device_run import DeviceRun, bind_run
from jaxdqn.objectives.losses import Loss
from jaxdqn.objectives.objective import Objective
from jaxdqn.observations import ObsSpec, stats_frames, stats_of
from jaxdqn.parallel.mesh import make_mesh
from jaxdqn.parallel.parallel_agent import agent_of
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.replay.capacity import check_capacity, with_capacity
from jaxdqn.returns import NStepReturn
from jaxdqn.schedules import learning_start
from jaxdqn.storage.free_memory import ALONE, FreeMemory, Sharing, free_bytes, free_disk_bytes, free_host_bytes


def free_memory(config: Config, sharing: Sharing = ALONE) -> FreeMemory:
    """Measure the memory that is free for a run; `sharing` says which of its processes share this one's memory."""
    per_device = free_bytes(config.num_devices, sharing)
    if config.replay_storage == "device":
        return FreeMemory(per_device, per_device * config.num_devices * jax.process_count())
    for_obs = free_disk_bytes(config.output) if config.replay_storage == "disk" else free_host_bytes()
    return FreeMemory(per_device, for_obs)


def assemble_agent(
    config: Config,
    *,
    num_actions: int,
    obs: ObsSpec,
    obs_stats: ObservationStats | Callable[[], ObservationStats] | None,
    free: FreeMemory,
    num_seeds: int = 1,
    num_processes: int = 1,
    axis_name: str | None = None,
    action_masks: bool = False,
    overrides: AgentOverrides = AgentOverrides(),  # noqa: B008, it is immutable
) -> tuple[Config, Agent]:
    """Check the sizes of a run, give its config a capacity, and make its agent.

    Args:
        config: The run.
        num_actions: Number of discrete actions.
        obs: Spec of the observations.
        obs_stats: See `make_agent`; or a function that returns them, which is called after the checks.
        free: Memory that replay may use.
        num_seeds: Number of runs that will be vmapped together, each with its own replay.
        num_processes: Number of processes that train together.
        axis_name: See `make_agent`.
        action_masks: See `make_agent`.
        overrides: A user's own network, optimizer, objective and returns.

    Raises:
        ValueError: If there are fewer devices, the run ends before learning starts, or replay is too small or does not
            fit where `config.replay_storage` says; also see `make_agent`.
    """
    if config.num_devices * num_processes > 1:
        make_mesh(config.num_devices, num_processes)  # raises
    learning_start(config, stack=obs.stack or 1)  # raises
    num_masked = num_actions if action_masks else None
    config = with_capacity(config, obs, free.for_obs, num_seeds, num_masked=num_masked)
    check_capacity(config, obs, free.for_obs, num_seeds, num_masked=num_masked)
    agent = agent_of(
        config,
        num_actions=num_actions,
        obs=obs,
        obs_stats=obs_stats() if callable(obs_stats) else obs_stats,
        # The ring on the device is checked here, unless it holds only the indices of observations.
        bytes_available=None if config.replay_storage == "device" else free.on_device,
        num_processes=num_processes,
        axis_name=axis_name,
        action_masks=action_masks,
        overrides=overrides,
    )
    return config, agent


def make_device_run(
    config: Config,
    *,
    env: FunctionalEnv | None = None,
    obs_stats: ObservationStats | None = None,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    objective: Objective | None = None,
    loss: Loss | None = None,
    returns: NStepReturn | None = None,
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
        objective: See `make_agent`.
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
    rollout = partial(rollout_stats_of, env, config, obs)
    if bytes_available is None:
        parts = config.num_devices if axis_name is None else jax.local_device_count()
        bytes_available = free_bytes(parts) * config.num_devices
    config, agent = assemble_agent(
        config,
        num_actions=int(env.action_space.n),
        obs=obs,
        obs_stats=rollout if obs_stats is None and stats_frames(config, obs) else obs_stats,
        free=FreeMemory(bytes_available // config.num_devices, bytes_available),
        num_seeds=num_seeds,
        axis_name=axis_name,
        action_masks=env.action_mask is not None,
        overrides=AgentOverrides(network, optimizer, objective, loss, returns),
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
