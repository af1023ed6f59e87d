"""Greedy evaluation on a functional environment: whole episodes in one program, which can be mapped over seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxdqn.compilation import sequential_vmap_on_cpu
from jaxdqn.envs.functional.env import FunctionalEnv, vectorise
from jaxdqn.envs.rows import advance, open_episodes
from jaxdqn.learner import Params, QFunction


def make_device_evaluation(
    env: FunctionalEnv, q_function: QFunction, *, episodes: int, frame_stack: int | None, longest: int = 10_000
) -> Callable[[Params, Key[Array, ""]], Float[Array, " E"]]:
    """A function that plays greedy episodes side by side.

    `jaxdqn.train` does not use it: it judges agents on gymnasium's own environment. It is for the many agents of an
    experiment.

    Args:
        env: The environment.
        q_function: `(params, obs [E, ...]) -> [E, A]`.
        episodes: `E`, all played at once, and to their ends.
        frame_stack: Frames to a stack; None for vectors.
        longest: Steps after which episodes that are still open count with what they have got.

    Returns:
        `(params, key) -> raw returns [E]`; the key is consumed.

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

        def going_on(carry: Any) -> Array:
            *_, done, _, steps = carry
            return ~done.all() & (steps < longest)

        def step(carry: Any) -> Any:
            states, cursor, key, done, returns, steps = carry
            key, step_key = jax.random.split(key)
            actions = jnp.argmax(q_values(params, cursor.stack), axis=-1).astype(jnp.int32)
            states, step_result = envs.step(step_key, states, cursor.last, actions)
            _, cursor, ended = advance(cursor, actions, step_result, frame_stack=frame_stack, reward_scale=1.0)
            returns = jnp.where(done, returns, ended.raw_return)  # what an episode has got so far, until it ends
            return states, cursor, key, done | ended.ended, returns, steps + 1

        cursor = open_episodes(obs, frame_stack)
        none, zeros = jnp.zeros(episodes, bool), jnp.zeros(episodes)
        return jax.lax.while_loop(going_on, step, (states, cursor, key, none, zeros, jnp.int32(0)))[4]

    return evaluate
