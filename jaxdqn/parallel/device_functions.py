"""What each device of a mesh runs: the functions of an agent on the device's own environments, rows and keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from jaxdqn.agent.agent import ActorState
from jaxdqn.learner import LearnerState, Metrics
from jaxdqn.parallel.mesh import AXIS
from jaxdqn.replay.priorities import Priorities
from jaxdqn.replay.ring import ReplayState
from jaxdqn.types import Batch, Sample


def device_key(key: Key[Array, ""], *, first: int) -> Key[Array, ""]:
    """Return a device's own key.

    Args:
        key: The key that all devices have.
        first: Index, among the devices of all processes, of the first one that runs the program: 0 if all do.
    """
    return jax.random.fold_in(key, first + jax.lax.axis_index(AXIS))


def with_own_key(function: Callable[..., Any], *, first: int) -> Callable[..., Any]:
    """Return the function of a ring, a key and beta with a different key on each device; see `device_key`."""

    def call(ring: ReplayState, key: Key[Array, ""], beta: Float[Array, ""] | float = 1.0) -> Any:
        return function(ring, device_key(key, first=first), beta)

    return call


def act_on_part(
    actor: ActorState,
    obs: Shaped[Any, "N ..."],
    mask: Bool[Any, "N A"] | None = None,
    *,
    act: Callable[..., Any],
    first: int,
    count: int,
) -> tuple[ActorState, Int[Array, " N"]]:
    """Act on a device's environments; the actor's key and frame stay the same on all devices."""
    key, act_key = jax.random.split(actor.key)
    local_actor = actor._replace(key=device_key(act_key, first=first), frame=actor.frame // count)
    local, actions = act(local_actor, obs, mask)
    return local._replace(key=key, frame=local.frame * count), actions


def draw_part(
    ring: ReplayState, key: Key[Array, ""], beta: Float[Array, ""] | float = 1.0, *, draw: Callable[..., Any]
) -> tuple[Sample, Key[Array, "U 1"]]:
    """Draw a device's windows; its keys become a column of those of all devices."""
    windows, keys = draw(ring, key, beta)
    return windows, keys[:, None]


def augment_part(keys: Key[Array, "U 1"], windows: Batch, *, augment: Callable[..., Batch]) -> Batch:
    """Augment a device's windows with its column of keys."""
    return augment(keys[:, 0], windows)


def update_part(
    learner: LearnerState, samples: Sample, keys: Key[Array, " U"] | None = None, *, update: Callable[..., Any]
) -> tuple[LearnerState, Metrics, Float[Array, "U B"]]:
    """Update with a device's part of the samples; its metrics become a column of those of all devices."""
    learner, metrics, priority = update(learner, samples, keys)
    return learner, jax.tree.map(lambda x: x[:, None], metrics), priority


def learn_part(
    learned: tuple[LearnerState, Priorities | None],
    ring: ReplayState,
    key: Key[Array, ""],
    frame: Int[Array, ""],
    *,
    learn: Callable[..., Any],
    average_metrics: bool,
) -> Any:
    """Learn on a device. A process cannot read the metrics of another, so several processes average them."""
    learned, params, next_key, metrics = learn(learned, ring, key, frame)
    return learned, params, next_key, jax.lax.pmean(metrics, AXIS) if average_metrics else metrics


def all_can_sample(ring: ReplayState, *, can_sample: Callable[..., Bool[Array, ""]]) -> Bool[Array, ""]:
    """Return whether every device can sample: all learn or none does, as an update waits for all gradients."""
    return jax.lax.pmin(can_sample(ring).astype(jnp.int32), AXIS) > 0
