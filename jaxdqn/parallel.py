"""One agent on several devices: each has a part of the environments, of replay and of every batch.

    mesh = make_mesh(4)
    agent = make_parallel_agent(config, mesh, num_actions=2, obs_shape=(64, 64), obs_dtype=np.uint8, obs_stats=stats)

Parameters, target and optimiser are the same everywhere; gradients are averaged once an update, and nothing else is
sent. The agent is used as any other: what it takes and gives has the same shapes, over all devices.

Where `jax.distributed` has joined several processes, the mesh has devices of all of them, and each process has the
agent of its own part: its own environments, rows and shard of replay, as arrays that are all on its own devices. Only
the updates are programs of all processes, which all must call together.
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
from jaxdqn.global_program import GlobalProgram
from jaxdqn.learner import LearnerState, Metrics, copy, learn_if
from jaxdqn.observations import spec_from
from jaxdqn.replay import ReplayState, check_fits, row_bytes, smallest_slots
from jaxdqn.schedules import learning_start, with_capacity
from jaxdqn.types import Batch, Rows

AXIS = "devices"


def make_mesh(num_devices: int, num_processes: int = 1) -> Mesh:
    """The first devices of this process in a row, or those of each process, one after the other.

    Args:
        num_devices: How many of each process.
        num_processes: 1 takes this process's; `jax.process_count()` those of all that `jax.distributed` has joined.

    Raises:
        ValueError: If there are not so many.
    """
    if num_processes not in (1, jax.process_count()):
        raise ValueError(f"num_processes {num_processes} must be 1 or the {jax.process_count()} that are joined")
    there = jax.local_devices()
    if num_devices > len(there):
        mend = f"; set JAX_NUM_CPU_DEVICES={num_devices} to split the CPU" if there[0].platform == "cpu" else ""
        if there[0].platform != "cpu" and jax.process_count() > 1:
            mend = "; a cluster may give each process one: set JAX_LOCAL_DEVICE_IDS=0,1,... for more"
        raise ValueError(f"num_devices {num_devices} are not there: JAX finds {len(there)} {there[0].platform}{mend}")
    processes = [jax.process_index()] if num_processes == 1 else range(num_processes)
    of_each = [jax.local_devices(process_index=index)[:num_devices] for index in processes]
    return Mesh(np.array(of_each).reshape(-1), (AXIS,), axis_types=(AxisType.Auto,))


def part_of(config: Config, parts: int) -> Config:
    """What one device, or one process, does of a run: its share of environments, frames, replay and batches.

    Args:
        config: The run.
        parts: Into how many it is split.

    Raises:
        ValueError: If something cannot be split evenly; the nearest numbers that can be are named.
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
    """What this process does of a run; all of it where it is the only one."""
    return config if jax.process_count() == 1 else part_of(config, jax.process_count())


def agent_of(config: Config, *, num_processes: int = 1, axis_name: str | None = None, **how: Any) -> Agent:
    """The agent of a config, on one device or on as many as it says.

    Args:
        config: The run.
        num_processes: As `make_mesh` has it.
        axis_name: As `make_agent` has it; where the config has several devices, they have an axis of their own.
        how: As `make_agent` has it.
    """
    if config.num_devices * num_processes == 1:
        return make_agent(config, axis_name=axis_name, **how)
    return make_parallel_agent(config, make_mesh(config.num_devices, num_processes), **how)


def make_parallel_agent(config: Config, mesh: Mesh, **how: Any) -> Agent:
    """An agent over the devices of a mesh.

    Args:
        config: The whole run.
        mesh: One axis, `AXIS`, as `make_mesh` gives it.
        how: As `make_agent` has it; `bytes_available` is the memory of each device.

    Returns:
        The agent. Over several processes, `replay.sample` and `replay.can_sample` tell of this process's devices alone:
        whether to call what all must call together, all must agree on; `learn` does so itself.

    Raises:
        ValueError: If the config cannot be split evenly, or as `make_agent` does.
    """
    count, here = mesh.devices.size, mesh.local_mesh
    several = count > here.devices.size
    first = here.devices.size * jax.process_index() if several else 0  # of this process's devices among all
    if count > 1 and config.replay_storage != "device":
        raise ValueError(f"replay_storage {config.replay_storage!r} needs one device and not {count}: set it to device")
    obs = how["obs"] if how.get("obs") is not None else spec_from(config, how["obs_shape"], how["obs_dtype"])
    of_each = how.pop("bytes_available", None)
    free = None if of_each is None else of_each * count
    config = with_capacity(config, obs, free)
    if free is not None:  # of the whole, so that the capacity that is named is the config's
        smallest = smallest_slots(config.n_steps, obs.stack or 1) * config.num_envs
        bytes_a_row = row_bytes(obs.shape, np.dtype(obs.dtype))
        check_fits(config.planned_capacity, config.num_envs, bytes_a_row, free, smallest)
    part = make_agent(part_of(config, count), axis_name=AXIS, **how)
    whole, split, columns = P(), P(AXIS), P(None, AXIS)
    ring = ReplayState(rows=columns, cursor=whole, size=whole)  # type: ignore[arg-type]
    over = partial(jax.shard_map, mesh=here, check_vma=False)

    def own(key: Key[Array, ""], first: int) -> Key[Array, ""]:
        """A device's own key."""
        return jax.random.fold_in(key, first + jax.lax.axis_index(AXIS))

    def act(actor: ActorState, obs: Shaped[Any, "N ..."]) -> tuple[ActorState, Int[Array, " N"]]:
        key, act_key = jax.random.split(actor.key)
        local, actions = part.act(actor._replace(key=own(act_key, first), frame=actor.frame // count), obs)
        return local._replace(key=key, frame=local.frame * count), actions

    def draw(replay: ReplayState, key: Key[Array, ""]) -> tuple[Batch, Key[Array, "U 1"]]:
        windows, keys = part.draw(replay, own(key, first))
        return windows, keys[:, None]

    def augment(keys: Key[Array, "U 1"], windows: Batch) -> Batch:
        return part.augment(keys[:, 0], windows)

    def sample(replay: ReplayState, key: Key[Array, ""]) -> Batch:
        return part.sample(replay, own(key, first))

    def update(learner: LearnerState, batches: Batch) -> tuple[LearnerState, Metrics]:
        learner, metrics = part.update(learner, batches)
        return learner, jax.tree.map(lambda x: x[:, None], metrics)

    def learn(learner: LearnerState, replay: ReplayState, key: Key[Array, ""]) -> Any:
        def learn_here() -> Any:
            next_key, sample_key = jax.random.split(key)
            learned, metrics = update(learner, part.sample(replay, own(sample_key, 0)))  # among the devices of all
            return (learned, next_key), metrics

        # All learn or none: an update waits for the gradients of all.
        (learned, next_key), metrics = learn_if(can_sample(replay), learn_here, (learner, key))
        if several:
            metrics = jax.lax.pmean(metrics, AXIS)  # no process sees the others' metrics
        return learned, copy(learned.params), next_key, metrics

    def add(replay: ReplayState, rows: Rows) -> ReplayState:
        return part.replay.add(replay, rows)

    def sample_windows(replay: ReplayState, key: Key[Array, ""]) -> Batch:
        return part.replay.sample(replay, own(key, first))

    def can_sample(replay: ReplayState) -> Bool[Array, ""]:
        return jax.lax.pmin(part.replay.can_sample(replay).astype(jnp.int32), AXIS) > 0

    state_specs = AgentState(learner=whole, replay=ring, actor=whole, key=whole)  # type: ignore[arg-type]
    learning = GlobalProgram(learn, mesh, (whole, ring, whole), (whole, whole, whole, columns))
    adding = jit(over(add, in_specs=(ring, columns), out_specs=ring), donate_argnums=0)
    acting = jit(over(act, in_specs=(whole, split), out_specs=(whole, split)))

    def learn_all(state: AgentState) -> tuple[AgentState, Metrics]:
        learner, params, key, metrics = learning(state.learner, state.replay, state.key)
        return state._replace(learner=learner, actor=state.actor._replace(params=params), key=key), metrics

    def observe(state: AgentState, rows: Rows) -> AgentState:
        return state._replace(replay=adding(state.replay, rows))

    def compile_loop(state: AgentState) -> None:
        num_envs = state.replay.rows.action.shape[1]
        acting.lower(state.actor, jax.ShapeDtypeStruct((num_envs, *obs.seen_shape), obs.dtype)).compile()
        if not several:  # processes may wait for one another to compile what they share, and not all come here
            learning.lower(state.learner, state.replay, state.key).compile()

    def epsilon(frame: Int[Array, ""]) -> Any:
        return part.epsilon(frame // count)

    replay = part.replay._replace(
        init=jit(over(part.replay.init, in_specs=(), out_specs=ring)),
        add=adding,
        sample=jit(over(sample_windows, in_specs=(ring, whole), out_specs=columns)),
        can_sample=jit(over(can_sample, in_specs=(ring,), out_specs=whole)),
        num_bytes=part.replay.num_bytes * here.devices.size,
    )
    return Agent(
        init=jit(over(part.init, in_specs=whole, out_specs=state_specs)),  # of one key, so of the same parameters
        act=acting,
        observe=observe,
        learn=learn_all,
        sample=jit(over(sample, in_specs=(ring, whole), out_specs=columns)),
        draw=jit(over(draw, in_specs=(ring, whole), out_specs=(columns, columns))),
        augment=jit(over(augment, in_specs=(columns, columns), out_specs=columns)),
        update=GlobalProgram(update, mesh, (whole, columns), (whole, columns)),
        compile=compile_loop,
        q_values=part.q_values,
        epsilon=epsilon,
        replay=replay,
        learning_start=learning_start(config, stack=obs.stack or 1),
    )


def devices_of(array: Array) -> list[np.ndarray]:
    """What each device has of an array, in the order of the devices."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.device.id)
    return [np.asarray(shard.data) for shard in shards]
