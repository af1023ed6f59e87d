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
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, DTypeLike, Int, Key, Shaped

from jaxdqn.agent.functions import compile_agent, learn_agent, learn_from_ring, observe_rows
from jaxdqn.agent.make_agent import AgentPieces, make_agent
from jaxdqn.agent.state import ActorState, Agent, AgentInternals, AgentState
from jaxdqn.compilation import jit
from jaxdqn.config import Config
from jaxdqn.learner import LearnerState, Metrics
from jaxdqn.observations import ObsSpec, spec_from
from jaxdqn.parallel.global_program import GlobalProgram
from jaxdqn.parallel.mesh import AXIS, make_mesh, part_of
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.replay.capacity import check_capacity, with_capacity
from jaxdqn.replay.ring import ReplayState
from jaxdqn.schedules import learning_start
from jaxdqn.types import Batch


def agent_of(
    config: Config,
    *,
    num_actions: int,
    obs: ObsSpec,
    obs_stats: ObservationStats | None = None,
    bytes_available: int | None = None,
    num_processes: int = 1,
    axis_name: str | None = None,
    **pieces: Unpack[AgentPieces],
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
        pieces: See `make_agent`.
    """
    options = {"num_actions": num_actions, "obs": obs, "obs_stats": obs_stats, "bytes_available": bytes_available}
    if config.num_devices * num_processes == 1:
        return make_agent(config, axis_name=axis_name, **options, **pieces)  # type: ignore[arg-type]
    return make_parallel_agent(config, make_mesh(config.num_devices, num_processes), **options, **pieces)  # type: ignore[arg-type]


def make_parallel_agent(
    config: Config,
    mesh: Mesh,
    *,
    num_actions: int,
    obs: ObsSpec | None = None,
    obs_shape: tuple[int, ...] | None = None,
    obs_dtype: DTypeLike | None = None,
    obs_stats: ObservationStats | None = None,
    bytes_available: int | None = None,
    **pieces: Unpack[AgentPieces],
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
        bytes_available: Memory of each device that replay may use; None: no check.
        pieces: Your own network, optimizer, loss or returns; see `make_agent`.

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
    free = None if bytes_available is None else bytes_available * count
    config = with_capacity(config, obs, free)
    if free is not None:  # checked for all devices together, so that the message names the config's capacity
        check_capacity(config, obs, free)
    part = make_agent(
        part_of(config, count), num_actions=num_actions, obs=obs, obs_stats=obs_stats, axis_name=AXIS, **pieces
    )
    # Index of this process's first device among all devices.
    first = local_mesh.devices.size * jax.process_index() if spans_processes else 0
    replicated, split, columns = P(), P(AXIS), P(None, AXIS)
    ring = ReplayState(rows=columns, cursor=replicated, size=replicated)  # type: ignore[arg-type]
    state = AgentState(replicated, ring, replicated, replicated)  # type: ignore[arg-type]

    def mapped(function: Callable[..., Any], in_specs: Any, out_specs: Any, **options: Any) -> jit:
        """Compile a function that each device of this process runs on its own part of the arguments."""
        over = jax.shard_map(function, mesh=local_mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        return jit(over, **options)

    can_sample = partial(all_can_sample, can_sample=part.replay.can_sample)
    update = partial(update_part, update=part.update)
    learn = partial(
        learn_part,
        # This runs on the devices of all processes, so the axis index already counts from the first process's.
        learn=partial(learn_from_ring, can_sample=can_sample, sample=with_own_key(part.sample), update=update),
        average_metrics=spans_processes,
    )
    learning = GlobalProgram(learn, mesh, (replicated, ring, replicated), (replicated, replicated, replicated, columns))
    adding = mapped(part.replay.add, (ring, columns), ring, donate_argnums=0)
    acting = mapped(
        partial(act_on_part, act=part.act, first=first, count=count), (replicated, split), (replicated, split)
    )
    # A whole program of several processes is compiled when they call it: here one may wait for others that never come.
    compiled = None if spans_processes else learning
    return Agent(
        init=mapped(part.init, replicated, state),  # the same key, so the same parameters
        act=acting,
        observe=partial(observe_rows, add=adding, storage="device"),
        learn=partial(learn_agent, learn=learning),
        q_values=part.q_values,
        epsilon=lambda frame: part.epsilon(frame // count),
        sample=mapped(with_own_key(part.sample, first), (ring, replicated), columns),
        update=GlobalProgram(update, mesh, (replicated, columns), (replicated, columns)),
        replay=part.replay._replace(
            init=mapped(part.replay.init, (), ring),
            add=adding,
            sample=mapped(with_own_key(part.replay.sample, first), (ring, replicated), columns),
            can_sample=mapped(can_sample, (ring,), replicated),
            num_bytes=part.replay.num_bytes * local_mesh.devices.size,
        ),
        internals=AgentInternals(
            draw=mapped(
                partial(draw_part, draw=with_own_key(part.internals.draw, first)),
                (ring, replicated),
                (columns, columns),
            ),
            augment=mapped(partial(augment_part, augment=part.internals.augment), (columns, columns), columns),
            compile=partial(compile_agent, act=acting, learn=compiled, obs=obs),
            learning_start=learning_start(config, stack=obs.stack or 1),
        ),
    )


def device_key(key: Key[Array, ""], first: int = 0) -> Key[Array, ""]:
    """Return a device's own key; `first` is the index of the mesh's first device among those of all processes."""
    return jax.random.fold_in(key, first + jax.lax.axis_index(AXIS))


def with_own_key(function: Callable[..., Any], first: int = 0) -> Callable[..., Any]:
    """Return `(ring, key) -> ...` with a different key on each device."""
    return lambda ring, key: function(ring, device_key(key, first))


def act_on_part(
    actor: ActorState, obs: Shaped[Any, "N ..."], *, act: Callable[..., Any], first: int, count: int
) -> tuple[ActorState, Int[Array, " N"]]:
    """Act on a device's environments; the actor's key and frame stay the same on all devices."""
    key, act_key = jax.random.split(actor.key)
    local, actions = act(actor._replace(key=device_key(act_key, first), frame=actor.frame // count), obs)
    return local._replace(key=key, frame=local.frame * count), actions


def draw_part(ring: ReplayState, key: Key[Array, ""], *, draw: Callable[..., Any]) -> tuple[Batch, Key[Array, "U 1"]]:
    """Draw a device's windows; its keys become a column of those of all devices."""
    windows, keys = draw(ring, key)
    return windows, keys[:, None]


def augment_part(keys: Key[Array, "U 1"], windows: Batch, *, augment: Callable[..., Batch]) -> Batch:
    """Augment a device's windows with its column of keys."""
    return augment(keys[:, 0], windows)


def update_part(learner: LearnerState, batches: Batch, *, update: Callable[..., Any]) -> tuple[LearnerState, Metrics]:
    """Update with a device's part of the batches; its metrics become a column of those of all devices."""
    learner, metrics = update(learner, batches)
    return learner, jax.tree.map(lambda x: x[:, None], metrics)


def learn_part(
    learner: LearnerState,
    ring: ReplayState,
    key: Key[Array, ""],
    *,
    learn: Callable[..., Any],
    average_metrics: bool,
) -> Any:
    """Learn on a device. A process cannot read the metrics of another, so several processes average them."""
    learned, params, next_key, metrics = learn(learner, ring, key)
    return learned, params, next_key, jax.lax.pmean(metrics, AXIS) if average_metrics else metrics


def all_can_sample(ring: ReplayState, *, can_sample: Callable[..., Bool[Array, ""]]) -> Bool[Array, ""]:
    """Return whether every device can sample: all learn or none does, as an update waits for all gradients."""
    return jax.lax.pmin(can_sample(ring).astype(jnp.int32), AXIS) > 0
