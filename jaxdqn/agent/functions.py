"""The functions of an agent, which `make_agent` and `make_parallel_agent` bind to a network, replay and sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from jaxdqn.agent.agent import ActorState, AgentState
from jaxdqn.compilation import Program
from jaxdqn.exploration import epsilon_greedy
from jaxdqn.learner import LearnerState, Metrics, Params, copy, init_learner, learn_if
from jaxdqn.networks.apply import NetworkKeys
from jaxdqn.observations import ObsSpec
from jaxdqn.replay.priorities import Priorities
from jaxdqn.replay.ring import ReplayState
from jaxdqn.types import Batch, Rows, Sample


def init_agent(
    key: Key[Array, ""],
    *,
    new_params: Callable[[Key[Array, ""]], Params],
    optimizer: optax.GradientTransformation,
    new_ring: Callable[[], ReplayState],
    average: bool = False,
) -> AgentState:
    """Return the first state of an agent; the key is consumed."""
    params_key, actor_key, sample_key = jax.random.split(key, 3)
    learner = init_learner(new_params(params_key), optimizer, average=average)
    actor = ActorState(copy(learner.params), actor_key, jnp.zeros((), jnp.int32))
    return AgentState(learner=learner, replay=new_ring(), actor=actor, key=sample_key)


def act_epsilon_greedy(
    actor: ActorState,
    obs: Shaped[Array, "N ..."],
    mask: Bool[Array, "N A"] | None = None,
    *,
    q_values: Callable[..., Float[Array, "N A"]],
    epsilon: Callable[[Int[Array, ""]], Float[Array, ""]],
    noisy: bool = False,
) -> tuple[ActorState, Int[Array, " N"]]:
    """Return an action for each environment; epsilon is that of the frame before the step.

    If the network is `noisy`, its noise is drawn anew in each step, the same for all environments.
    """
    key, explore_key, noise_key = jax.random.split(actor.key, 3)
    keys = (NetworkKeys(noise_key),) if noisy else ()
    actions = epsilon_greedy(explore_key, q_values(actor.params, obs, *keys), epsilon(actor.frame), mask)
    return actor._replace(key=key, frame=actor.frame + actions.shape[0]), actions


def observe_rows(
    state: AgentState, rows: Rows, *, add: Callable[[ReplayState, Rows], ReplayState], storage: str
) -> AgentState:
    """Add rows to the ring.

    Raises:
        ValueError: If `storage` is not "device", so that the ring holds indices, and the rows hold observations.
    """
    if storage != "device" and rows.obs.shape != rows.action.shape:
        raise ValueError(f"replay_storage {storage!r} needs an agent from with_frame_store")
    return state._replace(replay=add(state.replay, rows))


def draw_windows(
    ring: ReplayState,
    key: Key[Array, ""],
    beta: Float[Array, ""] | float = 1.0,
    *,
    sample: Callable[..., Sample],
    updates: int,
) -> tuple[Sample, Key[Array, " U"]]:
    """Return the windows of all updates of one `learn`, and a key for each update to augment them with."""
    window_key, augment_key = jax.random.split(key)
    return sample(ring, window_key, beta), jax.random.split(augment_key, updates)


def sample_batches(
    ring: ReplayState,
    key: Key[Array, ""],
    beta: Float[Array, ""] | float = 1.0,
    *,
    draw: Callable[..., Any],
    augment: Callable[..., Batch],
) -> Sample:
    """Return the samples of all updates of one `learn`, augmented."""
    windows, keys = draw(ring, key, beta)
    return windows._replace(batch=augment(keys, windows.batch))


def update_batches(
    learner: LearnerState, samples: Sample, keys: Key[Array, " U"] | None = None, *, scan: Callable[..., Any]
) -> tuple[LearnerState, Metrics, Float[Array, "U B"]]:
    """Update once for each sample `[U, B, ...]`; `scan` is `jax.lax.scan` of one update."""
    learner, (metrics, priority) = scan(learner, (samples, keys))
    return learner, metrics, priority


def learn_from_ring(
    learned: tuple[LearnerState, Priorities | None],
    ring: ReplayState,
    key: Key[Array, ""],
    frame: Int[Array, ""],
    *,
    beta: Callable[[Int[Array, ""]], Float[Array, ""]],
    can_sample: Callable[[ReplayState], Bool[Array, ""]],
    sample: Callable[..., Sample],
    update: Callable[..., Any],
    update_priorities: Callable[..., ReplayState],
    updates: int,
) -> tuple[tuple[LearnerState, Priorities | None], Params, Key[Array, ""], Metrics]:
    """Return the learner and the priorities after a sample and its updates, parameters to act with, a key, and metrics.

    Args:
        learned: The learner and the ring's priorities, which change.
        ring: The ring without its priorities, which is only read.
        key: Random key, consumed.
        frame: Frames acted on so far.
        beta: See `Agent`.
        can_sample: See `Replay`.
        sample: See `Agent`.
        update: See `Agent`.
        update_priorities: See `Replay`.
        updates: Number of updates.
    """
    learner, priorities = learned
    ring = ring._replace(priorities=priorities)

    def learn_once() -> Any:
        next_key, sample_key, update_key = jax.random.split(key, 3)
        samples = sample(ring, sample_key, beta(frame))
        next_learner, metrics, priority = update(learner, samples, jax.random.split(update_key, updates))
        changed = update_priorities(ring, samples.index, priority)
        return ((next_learner, changed.priorities), next_key), metrics

    (learned, next_key), metrics = learn_if(can_sample(ring), learn_once, (learned, key))
    return learned, copy(learned[0].params), next_key, metrics


def learn_agent(state: AgentState, *, program: Program) -> tuple[AgentState, Metrics]:
    """Call the program of `learn_from_ring` on a whole state; the rows are only read, and so no result of it."""
    learned = state.learner, state.replay.priorities
    ring = state.replay._replace(priorities=None)
    (learner, priorities), params, key, metrics = program(learned, ring, state.key, state.actor.frame)
    actor, ring = state.actor._replace(params=params), ring._replace(priorities=priorities)
    return AgentState(learner, ring, actor, key), metrics


def compile_agent(state: AgentState, *, act: Program, learn: Program | None, obs: ObsSpec) -> None:
    """Compile the programs `act` and, if it is given, `learn` for the arguments that a loop will pass."""
    num_envs = state.replay.rows.action.shape[1]
    mask = state.replay.rows.mask
    masks = () if mask is None else (jax.ShapeDtypeStruct((num_envs, mask.shape[-1]), mask.dtype),)
    act.lower(state.actor, jax.ShapeDtypeStruct((num_envs, *obs.seen_shape), obs.dtype), *masks).compile()
    if learn is not None:
        ring = state.replay._replace(priorities=None)
        learn.lower((state.learner, state.replay.priorities), ring, state.key, state.actor.frame).compile()
