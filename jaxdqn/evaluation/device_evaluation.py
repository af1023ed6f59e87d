"""Greedy evaluation on a functional environment: whole episodes in one program, which `jax.vmap` can map over seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxdqn.compilation import sequential_vmap_on_cpu
from jaxdqn.envs.functional.env import FunctionalEnv, vectorise
from jaxdqn.envs.rows import advance
from jaxdqn.exploration import allowed_values
from jaxdqn.learner import Params, QFunction


def make_device_evaluation(
    env: FunctionalEnv, q_function: QFunction, *, episodes: int, frame_stack: int | None, longest: int = 10_000
) -> Callable[[Params, Key[Array, ""]], Float[Array, " E"]]:
    """Return a function that plays greedy episodes in parallel.

    `jaxdqn.train` does not use it, because it evaluates agents on gymnasium's own environment. Use it for experiments
    with many agents.

    Args:
        env: The environment.
        q_function: `(params, obs [E, ...]) -> [E, A]`.
        episodes: Number of episodes `E`, all played in parallel, each to its end.
        frame_stack: Frames in a stack; None for vectors.
        longest: Steps after which unfinished episodes are cut; they count with their return up to then.

    Returns:
        `(params, key) -> raw returns [E]`, float32; the key is consumed.

    Raises:
        ValueError: If `episodes` or `longest` is below 1.
    """
    if min(episodes, longest) < 1:
        raise ValueError(f"episodes {episodes} and longest {longest} must be at least 1")
    envs = vectorise(env, episodes)
    q_values = sequential_vmap_on_cpu(q_function)

    def evaluate(params: Params, key: Key[Array, ""]) -> Float[Array, " E"]:
        reset_key, key = jax.random.split(key)
        states, obs = envs.reset(reset_key)

        def unfinished(carry: Any) -> Array:
            *_, done, _, steps = carry
            return ~done.all() & (steps < longest)

        def step(carry: Any) -> Any:
            states, cursor, key, done, returns, steps = carry
            key, step_key = jax.random.split(key)
            actions = jnp.argmax(allowed_values(q_values(params, cursor.stack), cursor.mask), axis=-1).astype(jnp.int32)
            states, step_result = envs.step(step_key, states, cursor.last, actions)
            _, cursor, ended = advance(cursor, actions, step_result, frame_stack=frame_stack)
            returns = jnp.where(done, returns, ended.raw_return)  # the return so far, until the episode ends
            return states, cursor, key, done | ended.ended, returns, steps + 1

        cursor = envs.open(states, obs, frame_stack)
        done, returns = jnp.zeros(episodes, bool), jnp.zeros(episodes)
        return jax.lax.while_loop(unfinished, step, (states, cursor, key, done, returns, jnp.int32(0)))[4]

    return evaluate
