"""One agent on several devices: each device has a share of the environments, of replay and of every batch.

    mesh = make_mesh(4)
    agent = make_parallel_agent(config, mesh, num_actions=2, obs_shape=(64, 64), obs_dtype=np.uint8, obs_stats=stats)

Parameters, target and optimizer state are replicated on all devices. Gradients are averaged once per update; nothing
else is communicated. The agent is used like any other: arguments and results have the same shapes, over all devices.

With several processes (`jax.distributed`), the mesh holds the devices of all of them, and each process has the agent of
its own share: its environments, its rows and its shard of replay, as arrays on its own devices. Only the updates run on
the devices of all processes; all processes must call them together.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Int, Key, Shaped

from jaxdqn.agent import ActorState, Agent, AgentState, make_agent
from jaxdqn.compilation import jit
from jaxdqn.config import Config
from jaxdqn.learner import LearnerState, Metrics, copy, learn_if
from jaxdqn.multi_process import GlobalProgram
from jaxdqn.observations import spec_from
from jaxdqn.replay import ReplayState, check_fits, row_bytes, smallest_slots
from jaxdqn.schedules import learning_start, with_capacity
from jaxdqn.types import Batch, Rows

AXIS = "devices"


def make_mesh(num_devices: int, num_processes: int = 1) -> Mesh:
    """Return a one-dimensional mesh of the first devices of this process, or of every process.

    Args:
        num_devices: Number of devices of each process.
        num_processes: 1 for this process only, or `jax.process_count()` for all processes.

    Raises:
        ValueError: If there are fewer devices, or `num_processes` is another number.
    """
    if num_processes not in (1, jax.process_count()):
        raise ValueError(f"num_processes {num_processes} must be 1 or the number of processes, {jax.process_count()}")
    local = jax.local_devices()
    if num_devices > len(local):
        hint = f"; set JAX_NUM_CPU_DEVICES={num_devices} to split the CPU" if local[0].platform == "cpu" else ""
        if local[0].platform != "cpu" and jax.process_count() > 1:
            hint = "; a cluster may assign one to each process: set JAX_LOCAL_DEVICE_IDS=0,1,... for more"
        found = f"{len(local)} {local[0].platform}"
        raise ValueError(f"num_devices {num_devices} are not available: JAX finds {found}{hint}")
    processes = [jax.process_index()] if num_processes == 1 else range(num_processes)
    devices = [jax.local_devices(process_index=index)[:num_devices] for index in processes]
    return Mesh(np.array(devices).reshape(-1), (AXIS,), axis_types=(AxisType.Auto,))


def part_of(config: Config, parts: int) -> Config:
    """Return the config of one device's or one process's share of a run: environments, frames, replay and batches.

    Args:
        config: The run.
        parts: Number of equal shares.

    Raises:
        ValueError: If a field cannot be split evenly; the message names the nearest values that can.
    """
    config.check_split(parts)
    num_envs = config.num_envs // parts
    return dataclasses.replace(
        config,
        num_devices=1,
        num_envs=num_envs,
        batch_size=config.batch_size // parts,
        capacity=config.planned_capacity // config.num_envs * num_envs,
        frames_per_batch=config.frames_per_batch // parts,
        total_frames=config.run_frames // parts,
        warmup_frames=-(-config.warmup_frames // parts),
        epsilon_frames=-(-config.epsilon_frames // parts) if config.epsilon_frames else config.epsilon_frames,
    )


def share_of(config: Config) -> Config:
    """Return the config of this process's share of a run; all of it if it is the only process."""
    return config if jax.process_count() == 1 else part_of(config, jax.process_count())


def agent_of(config: Config, *, num_processes: int = 1, axis_name: str | None = None, **options: Any) -> Agent:
    """Make the agent of a config, on one device or on `num_devices`.

    Args:
        config: The run.
        num_processes: See `make_mesh`.
        axis_name: See `make_agent`; ignored with several devices, whose mesh has an axis of its own.
        options: Other arguments of `make_agent`.
    """
    if config.num_devices * num_processes == 1:
        return make_agent(config, axis_name=axis_name, **options)
    return make_parallel_agent(config, make_mesh(config.num_devices, num_processes), **options)


def make_parallel_agent(config: Config, mesh: Mesh, **options: Any) -> Agent:
    """Make an agent over the devices of a mesh.

    Args:
        config: The whole run.
        mesh: A mesh with one axis, `AXIS`, from `make_mesh`.
        options: Other arguments of `make_agent`; `bytes_available` is the memory of each device.

    Returns:
        The agent. With several processes, `replay.sample` and `replay.can_sample` cover this process's devices only.
        Before calling a function that all processes must call together, they must agree to call it; `learn` does so
        itself.

    Raises:
        ValueError: If the config cannot be split evenly, or an argument is invalid (see `make_agent`).
    """
    count, local_mesh = mesh.devices.size, mesh.local_mesh
    spans_processes = count > local_mesh.devices.size
    # Index of this process's first device among all devices.
    first = local_mesh.devices.size * jax.process_index() if spans_processes else 0
    if count > 1 and config.replay_storage != "device":
        raise ValueError(f"replay_storage {config.replay_storage!r} needs one device and not {count}: set it to device")
    obs = options.get("obs")
    obs = spec_from(config, options["obs_shape"], options["obs_dtype"]) if obs is None else obs
    device_bytes = options.pop("bytes_available", None)
    free = None if device_bytes is None else device_bytes * count
    config = with_capacity(config, obs, free)
    if free is not None:  # checked for all devices together, so that the message names the config's capacity
        smallest = smallest_slots(config.n_steps, obs.stack or 1) * config.num_envs
        bytes_a_row = row_bytes(obs.shape, np.dtype(obs.dtype))
        check_fits(config.planned_capacity, config.num_envs, bytes_a_row, free, smallest)
    part = make_agent(part_of(config, count), axis_name=AXIS, **options)
    replicated, split, columns = P(), P(AXIS), P(None, AXIS)
    ring = ReplayState(rows=columns, cursor=replicated, size=replicated)  # type: ignore[arg-type]
    over = partial(jax.shard_map, mesh=local_mesh, check_vma=False)

    def device_key(key: Key[Array, ""], first: int) -> Key[Array, ""]:
        """Return a device's own key."""
        return jax.random.fold_in(key, first + jax.lax.axis_index(AXIS))

    def act(actor: ActorState, obs: Shaped[Any, "N ..."]) -> tuple[ActorState, Int[Array, " N"]]:
        key, act_key = jax.random.split(actor.key)
        local, actions = part.act(actor._replace(key=device_key(act_key, first), frame=actor.frame // count), obs)
        return local._replace(key=key, frame=local.frame * count), actions

    def draw(replay: ReplayState, key: Key[Array, ""]) -> tuple[Batch, Key[Array, "U 1"]]:
        windows, keys = part.draw(replay, device_key(key, first))
        return windows, keys[:, None]

    def augment(keys: Key[Array, "U 1"], windows: Batch) -> Batch:
        return part.augment(keys[:, 0], windows)

    def sample(replay: ReplayState, key: Key[Array, ""]) -> Batch:
        return part.sample(replay, device_key(key, first))

    def update(learner: LearnerState, batches: Batch) -> tuple[LearnerState, Metrics]:
        learner, metrics = part.update(learner, batches)
        return learner, jax.tree.map(lambda x: x[:, None], metrics)

    def learn(learner: LearnerState, replay: ReplayState, key: Key[Array, ""]) -> Any:
        def learn_here() -> Any:
            next_key, sample_key = jax.random.split(key)
            # This runs on the devices of all processes, so the axis index already counts from the first process's.
            learned, metrics = update(learner, part.sample(replay, device_key(sample_key, 0)))
            return (learned, next_key), metrics

        # All devices learn or none does: an update waits for the gradients of all.
        (learned, next_key), metrics = learn_if(can_sample(replay), learn_here, (learner, key))
        if spans_processes:
            metrics = jax.lax.pmean(metrics, AXIS)  # a process cannot read the metrics of another
        return learned, copy(learned.params), next_key, metrics

    def add(replay: ReplayState, rows: Rows) -> ReplayState:
        return part.replay.add(replay, rows)

    def sample_windows(replay: ReplayState, key: Key[Array, ""]) -> Batch:
        return part.replay.sample(replay, device_key(key, first))

    def can_sample(replay: ReplayState) -> Bool[Array, ""]:
        return jax.lax.pmin(part.replay.can_sample(replay).astype(jnp.int32), AXIS) > 0

    state_specs = AgentState(replicated, ring, replicated, replicated)  # type: ignore[arg-type]
    learning = GlobalProgram(learn, mesh, (replicated, ring, replicated), (replicated, replicated, replicated, columns))
    adding = jit(over(add, in_specs=(ring, columns), out_specs=ring), donate_argnums=0)
    acting = jit(over(act, in_specs=(replicated, split), out_specs=(replicated, split)))

    def learn_all(state: AgentState) -> tuple[AgentState, Metrics]:
        learner, params, key, metrics = learning(state.learner, state.replay, state.key)
        return state._replace(learner=learner, actor=state.actor._replace(params=params), key=key), metrics

    def observe(state: AgentState, rows: Rows) -> AgentState:
        return state._replace(replay=adding(state.replay, rows))

    def compile_loop(state: AgentState) -> None:
        num_envs = state.replay.rows.action.shape[1]
        acting.lower(state.actor, jax.ShapeDtypeStruct((num_envs, *obs.seen_shape), obs.dtype)).compile()
        if not spans_processes:  # to compile a shared program, processes may wait for others that do not come here
            learning.lower(state.learner, state.replay, state.key).compile()

    def epsilon(frame: Int[Array, ""]) -> Any:
        return part.epsilon(frame // count)

    replay = part.replay._replace(
        init=jit(over(part.replay.init, in_specs=(), out_specs=ring)),
        add=adding,
        sample=jit(over(sample_windows, in_specs=(ring, replicated), out_specs=columns)),
        can_sample=jit(over(can_sample, in_specs=(ring,), out_specs=replicated)),
        num_bytes=part.replay.num_bytes * local_mesh.devices.size,
    )
    return Agent(
        init=jit(over(part.init, in_specs=replicated, out_specs=state_specs)),  # same key, so the same parameters
        act=acting,
        observe=observe,
        learn=learn_all,
        sample=jit(over(sample, in_specs=(ring, replicated), out_specs=columns)),
        draw=jit(over(draw, in_specs=(ring, replicated), out_specs=(columns, columns))),
        augment=jit(over(augment, in_specs=(columns, columns), out_specs=columns)),
        update=GlobalProgram(update, mesh, (replicated, columns), (replicated, columns)),
        compile=compile_loop,
        q_values=part.q_values,
        epsilon=epsilon,
        replay=replay,
        learning_start=learning_start(config, stack=obs.stack or 1),
    )


def devices_of(array: Array) -> list[np.ndarray]:
    """Return each device's part of an array, in the order of the devices."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.device.id)
    return [np.asarray(shard.data) for shard in shards]
