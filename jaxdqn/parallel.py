"""One agent on several devices: each has a part of the environments, of replay and of every batch.

    mesh = make_mesh(4)
    agent = make_parallel_agent(config, mesh, num_actions=2, obs_shape=(64, 64), obs_dtype=np.uint8, obs_stats=stats)

Parameters, target and optimiser are the same everywhere; gradients are averaged once an update, and nothing else is
sent. The agent is used as any other: what it takes and gives has the same shapes, over all devices.
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
from jaxtyping import Array, Int, Key, Shaped

from jaxdqn.agent import ActorState, Agent, AgentState, make_agent
from jaxdqn.compilation import jit
from jaxdqn.config import Config
from jaxdqn.learner import LearnerState, Metrics
from jaxdqn.replay import ReplayState
from jaxdqn.schedules import learning_start
from jaxdqn.types import Batch, Rows

AXIS = "devices"


def make_mesh(num_devices: int) -> Mesh:
    """The first devices of this process in a row.

    Raises:
        ValueError: If there are not so many.
    """
    there = jax.local_devices()
    if num_devices > len(there):
        mend = f"; set JAX_NUM_CPU_DEVICES={num_devices} to split the CPU" if there[0].platform == "cpu" else ""
        raise ValueError(f"num_devices {num_devices} are not there: JAX finds {len(there)} {there[0].platform}{mend}")
    return jax.make_mesh((num_devices,), (AXIS,), devices=there[:num_devices], axis_types=(AxisType.Auto,))


def part_of(config: Config, num_devices: int) -> Config:
    """What one device does of a run: its share of environments, frames, replay and batches.

    Raises:
        ValueError: If something cannot be split evenly; the nearest numbers that can be are named.
    """
    config = dataclasses.replace(config, num_devices=num_devices)  # which refuses what cannot be split
    num_envs = config.num_envs // num_devices
    return dataclasses.replace(
        config,
        num_devices=1,
        num_envs=num_envs,
        batch_size=config.batch_size // num_devices,
        capacity=config.capacity // config.num_envs * num_envs,
        frames_per_batch=config.frames_per_batch // num_devices,
        total_frames=config.num_batches * config.frames_per_batch // num_devices,
        warmup_frames=-(-config.warmup_frames // num_devices),
    )


def agent_of(config: Config, *, axis_name: str | None = None, **how: Any) -> Agent:
    """The agent of a config, on one device or on as many as it says.

    Args:
        config: The run.
        axis_name: As `make_agent` has it; where the config has several devices, they have an axis of their own.
        how: As `make_agent` has it.
    """
    if config.num_devices == 1:
        return make_agent(config, axis_name=axis_name, **how)
    return make_parallel_agent(config, make_mesh(config.num_devices), **how)


def make_parallel_agent(config: Config, mesh: Mesh, **how: Any) -> Agent:
    """An agent over the devices of a mesh.

    Args:
        config: The whole run.
        mesh: One axis, `AXIS`.
        how: As `make_agent` has it.

    Raises:
        ValueError: If the config cannot be split evenly, or as `make_agent` does.
    """
    count = mesh.devices.size
    part = make_agent(part_of(config, count), axis_name=AXIS, **how)
    whole, split, columns = P(), P(AXIS), P(None, AXIS)
    ring = ReplayState(rows=columns, cursor=whole, size=whole)  # type: ignore[arg-type]
    over = partial(jax.shard_map, mesh=mesh, check_vma=False)

    def own(key: Key[Array, ""]) -> Key[Array, ""]:
        """A device's own key."""
        return jax.random.fold_in(key, jax.lax.axis_index(AXIS))

    def act(actor: ActorState, obs: Shaped[Any, "N ..."]) -> tuple[ActorState, Int[Array, " N"]]:
        key, act_key = jax.random.split(actor.key)
        local, actions = part.act(actor._replace(key=own(act_key), frame=actor.frame // count), obs)
        return local._replace(key=key, frame=local.frame * count), actions

    def draw(replay: ReplayState, key: Key[Array, ""]) -> tuple[Batch, Key[Array, " U"]]:
        return part.draw(replay, own(key))

    def sample(replay: ReplayState, key: Key[Array, ""]) -> Batch:
        return part.sample(replay, own(key))

    def update(learner: LearnerState, batches: Batch) -> tuple[LearnerState, Metrics]:
        learner, metrics = part.update(learner, batches)
        return learner, jax.tree.map(lambda x: x[:, None], metrics)

    def learn(learner: LearnerState, replay: ReplayState, key: Key[Array, ""]) -> Any:
        key, sample_key = jax.random.split(key)
        learner, metrics = update(learner, sample(replay, sample_key))
        return learner, jax.tree.map(jnp.copy, learner.params), key, metrics

    def add(replay: ReplayState, rows: Rows) -> ReplayState:
        return part.replay.add(replay, rows)

    state_specs = AgentState(learner=whole, replay=ring, actor=whole, key=whole)  # type: ignore[arg-type]
    learning = jit(
        over(learn, in_specs=(whole, ring, whole), out_specs=(whole, whole, whole, columns)), donate_argnums=0
    )
    adding = jit(over(add, in_specs=(ring, columns), out_specs=ring), donate_argnums=0)
    acting = jit(over(act, in_specs=(whole, split), out_specs=(whole, split)))

    def learn_all(state: AgentState) -> tuple[AgentState, Metrics]:
        learner, params, key, metrics = learning(state.learner, state.replay, state.key)
        return state._replace(learner=learner, actor=state.actor._replace(params=params), key=key), metrics

    def observe(state: AgentState, rows: Rows) -> AgentState:
        return state._replace(replay=adding(state.replay, rows))

    def compile_loop(state: AgentState) -> None:
        seen = how["obs_shape"] if not config.pixels else (*how["obs_shape"], config.frame_stack)
        acting.lower(state.actor, jax.ShapeDtypeStruct((config.num_envs, *seen), how["obs_dtype"])).compile()
        learning.lower(state.learner, state.replay, state.key).compile()

    def epsilon(frame: Int[Array, ""]) -> Any:
        return part.epsilon(frame // count)

    replay = part.replay._replace(
        init=jit(over(part.replay.init, in_specs=(), out_specs=ring)),
        add=adding,
        num_bytes=part.replay.num_bytes * count,
    )
    return Agent(
        init=jit(over(part.init, in_specs=whole, out_specs=state_specs)),  # of one key, so of the same parameters
        act=acting,
        observe=observe,
        learn=learn_all,
        sample=jit(over(sample, in_specs=(ring, whole), out_specs=columns)),
        draw=jit(over(draw, in_specs=(ring, whole), out_specs=(columns, whole))),
        augment=part.augment,
        update=jit(over(update, in_specs=(whole, columns), out_specs=(whole, columns)), donate_argnums=0),
        compile=compile_loop,
        q_values=part.q_values,
        epsilon=epsilon,
        replay=replay,
        learning_start=learning_start(config),
    )


def devices_of(array: Array) -> list[np.ndarray]:
    """What each device has of an array, in the order of the devices."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.device.id)
    return [np.asarray(shard.data) for shard in shards]
