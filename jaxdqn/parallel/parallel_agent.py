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

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, DTypeLike, Float, Int

from jaxdqn.agent.agent import Agent, AgentInternals, AgentState
from jaxdqn.agent.functions import compile_agent, learn_agent, learn_from_ring, observe_rows
from jaxdqn.agent.making import make_agent
from jaxdqn.agent.overrides import AgentOverrides
from jaxdqn.compilation import jit
from jaxdqn.config import Config
from jaxdqn.objectives.losses import Loss
from jaxdqn.objectives.objective import Objective
from jaxdqn.observations import ObsSpec, spec_from
from jaxdqn.parallel.device_functions import (
    act_on_part,
    all_can_sample,
    augment_part,
    draw_part,
    learn_part,
    update_part,
    with_own_key,
)
from jaxdqn.parallel.global_program import GlobalProgram
from jaxdqn.parallel.mesh import AXIS, make_mesh, part_of
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.replay.capacity import check_capacity, with_capacity
from jaxdqn.replay.ring import ReplayState
from jaxdqn.returns import NStepReturn
from jaxdqn.schedules import learning_start


def agent_of(
    config: Config,
    *,
    num_actions: int,
    obs: ObsSpec,
    obs_stats: ObservationStats | None = None,
    bytes_available: int | None = None,
    num_processes: int = 1,
    axis_name: str | None = None,
    action_masks: bool = False,
    overrides: AgentOverrides = AgentOverrides(),  # noqa: B008, it is immutable
) -> Agent:
    """Make the agent of a config, on one device or on `num_devices`.

    Args:
        config: The run.
        num_actions: See `make_agent`.
        obs: See `make_agent`.
        obs_stats: See `make_agent`.
        bytes_available: Memory of each device that replay may use; None: no check.
        num_processes: See `make_mesh`.
        axis_name: See `make_agent`; ignored with several devices, whose mesh has an axis of its own.
        action_masks: See `make_agent`.
        overrides: A user's own network, optimizer, objective and returns.
    """
    shared: dict[str, Any] = {"num_actions": num_actions, "obs": obs, "obs_stats": obs_stats}
    shared |= {"action_masks": action_masks, "bytes_available": bytes_available, **overrides._asdict()}
    if config.num_devices * num_processes == 1:
        return make_agent(config, axis_name=axis_name, **shared)
    return make_parallel_agent(config, make_mesh(config.num_devices, num_processes), **shared)


def make_parallel_agent(
    config: Config,
    mesh: Mesh,
    *,
    num_actions: int,
    obs: ObsSpec | None = None,
    obs_shape: tuple[int, ...] | None = None,
    obs_dtype: DTypeLike | None = None,
    obs_stats: ObservationStats | None = None,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    objective: Objective | None = None,
    loss: Loss | None = None,
    returns: NStepReturn | None = None,
    action_masks: bool = False,
    bytes_available: int | None = None,
) -> Agent:
    """Make an agent over the devices of a mesh.

    Args:
        config: The whole run.
        mesh: A mesh with one axis, `AXIS`, from `make_mesh`.
        num_actions: See `make_agent`.
        obs: See `make_agent`.
        obs_shape: See `make_agent`.
        obs_dtype: See `make_agent`.
        obs_stats: See `make_agent`.
        network: See `make_agent`.
        optimizer: See `make_agent`.
        objective: See `make_agent`.
        loss: See `make_agent`.
        returns: See `make_agent`.
        action_masks: See `make_agent`.
        bytes_available: Memory of each device that replay may use; None: no check.

    Returns:
        The agent. With several processes, `replay.sample` and `replay.can_sample` cover this process's devices only.
        Before calling a function that all processes must call together, they must agree to call it; `learn` does so
        itself.

    Raises:
        ValueError: If the config cannot be split evenly, or an argument is invalid (see `make_agent`).
    """
    count, local_mesh = mesh.devices.size, mesh.local_mesh
    spans_processes = count > local_mesh.devices.size
    if count > 1 and config.replay_storage != "device":
        raise ValueError(f"replay_storage {config.replay_storage!r} needs one device and not {count}: set it to device")
    obs = spec_from(config, obs_shape, obs_dtype) if obs is None else obs
    on_device = config.replay_storage == "device"
    free = None if bytes_available is None else bytes_available * count
    num_masked = num_actions if action_masks else None
    config = with_capacity(config, obs, free, num_masked=num_masked)
    if free is not None and on_device:
        # Of all devices together, so that the message names the config's capacity.
        check_capacity(config, obs, free, num_masked=num_masked)
    part = make_agent(
        part_of(config, count),
        num_actions=num_actions,
        obs=obs,
        obs_stats=obs_stats,
        network=network,
        optimizer=optimizer,
        objective=objective,
        loss=loss,
        returns=returns,
        action_masks=action_masks,
        bytes_available=None if on_device else bytes_available,
        axis_name=AXIS,
    )
    # Index, among the devices of all processes, of this process's first one.
    first = local_mesh.devices.size * jax.process_index() if spans_processes else 0
    replicated, split, columns = P(), P(AXIS), P(None, AXIS)
    no_priorities = ReplayState(rows=columns, cursor=replicated, size=replicated)  # type: ignore[arg-type]
    # Each device has the priorities of its own rows, as a part of the first axis.
    ring_specs = no_priorities._replace(priorities=split if config.prioritized else None)  # type: ignore[arg-type]
    state_specs = AgentState(replicated, ring_specs, replicated, replicated)  # type: ignore[arg-type]

    def mapped(function: Callable[..., Any], in_specs: Any, out_specs: Any, **options: Any) -> jit:
        """Compile a function that each device of this process runs on its own part of the arguments."""
        over = jax.shard_map(function, mesh=local_mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        return jit(over, **options)

    def beta(frame: Int[Array, ""]) -> Float[Array, ""]:
        return part.beta(frame // count)

    def with_beta(program: Callable[..., Any]) -> Callable[..., Any]:
        return lambda ring, key, beta=1.0: program(ring, key, jnp.asarray(beta, jnp.float32))

    can_sample = partial(all_can_sample, can_sample=part.replay.can_sample)
    update = partial(update_part, update=part.update)
    learn = partial(
        learn_from_ring,
        beta=beta,
        can_sample=can_sample,
        sample=with_own_key(part.sample, first=0),
        update=update,
        update_priorities=part.replay.update_priorities,
        updates=config.updates_per_batch,
    )
    learned_specs = (replicated, ring_specs.priorities)
    learn_program = GlobalProgram(
        partial(learn_part, learn=learn, average_metrics=spans_processes),
        mesh,
        (learned_specs, no_priorities, replicated, replicated),
        (learned_specs, replicated, replicated, columns),
    )
    add_program = mapped(part.replay.add, (ring_specs, columns), ring_specs, donate_argnums=0)
    act_part = partial(act_on_part, act=part.act, first=first, count=count)
    inputs = (replicated, split, split) if action_masks else (replicated, split)
    act_program = mapped(act_part, inputs, (replicated, split))
    ring_key_beta = (ring_specs, replicated, replicated)
    draw = partial(draw_part, draw=with_own_key(part.internals.draw, first=first))
    windows = with_own_key(part.replay.sample, first=first)
    update_program = GlobalProgram(update, mesh, (replicated, columns, replicated), (replicated, columns, columns))

    # A program of several processes is compiled when they call it: to compile it earlier, one might wait for others.
    early_program = None if spans_processes else learn_program
    return Agent(
        init=mapped(part.init, replicated, state_specs),  # the same key, so the same parameters
        act=act_program,
        observe=partial(observe_rows, add=add_program, storage=config.replay_storage),
        learn=partial(learn_agent, program=learn_program),
        q_values=part.q_values,
        epsilon=lambda frame: part.epsilon(frame // count),
        beta=beta,
        sample=with_beta(mapped(with_own_key(part.sample, first=first), ring_key_beta, columns)),
        update=update_program,
        replay=part.replay._replace(
            init=mapped(part.replay.init, (), ring_specs),
            add=add_program,
            sample=with_beta(mapped(windows, ring_key_beta, columns)),
            update_priorities=mapped(part.replay.update_priorities, (ring_specs, columns, columns), ring_specs),
            can_sample=mapped(can_sample, (ring_specs,), replicated),
            num_bytes=part.replay.num_bytes * local_mesh.devices.size,
        ),
        learning_start=learning_start(config, stack=obs.stack or 1),
        internals=AgentInternals(
            draw=with_beta(mapped(draw, ring_key_beta, (columns, columns))),
            augment=mapped(partial(augment_part, augment=part.internals.augment), (columns, columns), columns),
            compile=partial(compile_agent, act=act_program, learn=early_program, obs=obs),
            metric_names=part.internals.metric_names,
        ),
    )
