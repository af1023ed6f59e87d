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
from jaxdqn.observations import ObsSpec
from jaxdqn.replay.ring import ReplayState
from jaxdqn.types import Batch, Rows


def init_agent(
    key: Key[Array, ""],
    *,
    new_params: Callable[[Key[Array, ""]], Params],
    optimizer: optax.GradientTransformation,
    new_ring: Callable[[], ReplayState],
) -> AgentState:
    """Return the first state of an agent; the key is consumed."""
    params_key, actor_key, sample_key = jax.random.split(key, 3)
    learner = init_learner(new_params(params_key), optimizer)
    actor = ActorState(copy(learner.params), actor_key, jnp.zeros((), jnp.int32))
    return AgentState(learner=learner, replay=new_ring(), actor=actor, key=sample_key)


def act_epsilon_greedy(
    actor: ActorState,
    obs: Shaped[Array, "N ..."],
    *,
    q_values: Callable[..., Float[Array, "N A"]],
    epsilon: Callable[[Int[Array, ""]], Float[Array, ""]],
) -> tuple[ActorState, Int[Array, " N"]]:
    """Return an action for each environment; epsilon is that of the frame before the step."""
    key, explore_key = jax.random.split(actor.key)
    actions = epsilon_greedy(explore_key, q_values(actor.params, obs), epsilon(actor.frame))
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
    ring: ReplayState, key: Key[Array, ""], *, sample: Callable[..., Batch], updates: int
) -> tuple[Batch, Key[Array, " U"]]:
    """Return the windows of all updates of one `learn`, and a key for each update to augment them with."""
    window_key, augment_key = jax.random.split(key)
    return sample(ring, window_key), jax.random.split(augment_key, updates)


def sample_batches(
    ring: ReplayState, key: Key[Array, ""], *, draw: Callable[..., Any], augment: Callable[..., Batch]
) -> Batch:
    """Return the batches of all updates of one `learn`, augmented."""
    windows, keys = draw(ring, key)
    return augment(keys, windows)


def update_batches(
    learner: LearnerState, batches: Batch, *, scan: Callable[[LearnerState, Batch], tuple[LearnerState, Metrics]]
) -> tuple[LearnerState, Metrics]:
    """Update once for each batch `[U, B, ...]`; `scan` is `jax.lax.scan` of one update."""
    return scan(learner, batches)


def learn_from_ring(
    learner: LearnerState,
    ring: ReplayState,
    key: Key[Array, ""],
    *,
    can_sample: Callable[[ReplayState], Bool[Array, ""]],
    sample: Callable[..., Batch],
    update: Callable[[LearnerState, Batch], tuple[LearnerState, Metrics]],
) -> tuple[LearnerState, Params, Key[Array, ""], Metrics]:
    """Return the learner after a sample and its updates, a copy of its parameters to act with, the key, and metrics."""

    def learn_once() -> Any:
        next_key, sample_key = jax.random.split(key)
        learned, metrics = update(learner, sample(ring, sample_key))
        return (learned, next_key), metrics

    (learned, next_key), metrics = learn_if(can_sample(ring), learn_once, (learner, key))
    return learned, copy(learned.params), next_key, metrics


def learn_agent(state: AgentState, *, program: Program) -> tuple[AgentState, Metrics]:
    """Call the program of `learn_from_ring` on a whole state. The ring is not part of its results: it is only read."""
    learner, params, key, metrics = program(state.learner, state.replay, state.key)
    return state._replace(learner=learner, actor=state.actor._replace(params=params), key=key), metrics


def compile_agent(state: AgentState, *, act: Program, learn: Program | None, obs: ObsSpec) -> None:
    """Compile the programs `act` and, if it is given, `learn` for the arguments that a loop will pass."""
    num_envs = state.replay.rows.action.shape[1]
    act.lower(state.actor, jax.ShapeDtypeStruct((num_envs, *obs.seen_shape), obs.dtype)).compile()
    if learn is not None:
        learn.lower(state.learner, state.replay, state.key).compile()
