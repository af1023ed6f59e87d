"""Environments as pure functions, which a compiled program can step, draw and map over.

env = make_cartpole(pixels=True)                # or `from_gymnax`, `from_func_env`, or your own `reset` and `step`
envs = vectorise(env, 8)                        # autoreset in gymnasium's NEXT_STEP mode
states, obs = envs.reset(key)
cursor = open_episodes(obs, frame_stack=4)
states, step_result = envs.step(key, states, cursor.last, actions)
row, cursor, ended = advance(cursor, actions, step_result, frame_stack=4)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, Shaped

from jaxdqn.envs.rows import EnvCursor, StepResult, advance, open_episodes
from jaxdqn.exploration import random_actions
from jaxdqn.observations import storage_dtype

State = Any
"""A pytree of arrays."""


class FunctionalEnv(NamedTuple):
    """One environment: pure functions and spaces. It does not reset itself; `vectorise` adds autoreset.

    Attributes:
        reset: `(key) -> (state, obs)`; the key is consumed.
        step: `(key, state, action) -> (state, obs, reward, terminated, truncated)`; the key is consumed.
        observation_space: Space of one observation; a grey frame is `Box(0, 255, (H, W), uint8)`.
        action_space: `Discrete(n)`, from 0.
        observe: `(state) -> obs`; None if the state does not determine the observation. With it, autoreset draws once
            per step and not twice.
        draw: `(state) -> [H, W, 3] uint8`, a picture for people; None if there is none.
        valid: `(state) -> bool`: whether the space allows the state's observation; None if the observation itself shows
            that. Bytes that were converted from floats do not show it: they are always finite.
        action_mask: `(state) -> [A] bool`, which actions are allowed in a state; None: every action, always.
    """

    reset: Callable[[Key[Array, ""]], tuple[State, Shaped[Array, "..."]]]
    step: Callable[[Key[Array, ""], State, Int[Array, ""]], tuple[State, Array, Array, Array, Array]]
    observation_space: gym.spaces.Box
    action_space: gym.spaces.Discrete
    observe: Callable[[State], Shaped[Array, "..."]] | None = None
    draw: Callable[[State], Shaped[Array, "H W 3"]] | None = None
    valid: Callable[[State], Bool[Array, ""]] | None = None
    action_mask: Callable[[State], Bool[Array, " A"]] | None = None


class VectorEnv(NamedTuple):
    """`N` environments in lockstep, in gymnasium's `NEXT_STEP` autoreset mode.

    Attributes:
        reset: `(key) -> (states, obs [N, ...])`; the key is consumed.
        step: `(key, states, last [N], actions [N]) -> (states, step_result)`. If `last` says that the newest
            observation was the final one of its episode, the action is ignored and the environment is reset. The key is
            consumed.
        num_envs: `N`.
        action_mask: `(states) -> [N, A] bool`; None: every action is always allowed.
    """

    reset: Callable[[Key[Array, ""]], tuple[State, Shaped[Array, "N ..."]]]
    step: Callable[[Key[Array, ""], State, Bool[Array, " N"], Int[Array, " N"]], tuple[State, StepResult]]
    num_envs: int
    action_mask: Callable[[State], Bool[Array, "N A"]] | None = None

    def open(self, states: State, obs: Shaped[Array, "N ..."], frame_stack: int | None) -> EnvCursor:
        """Return the cursor of environments that were just reset."""
        return open_episodes(
            obs, frame_stack, None if self.action_mask is None else jnp.bool_(self.action_mask(states))
        )


def vectorise(env: FunctionalEnv, num_envs: int) -> VectorEnv:
    """Return `num_envs` copies of an environment, each with its own keys, and observations in the dtype of rows.

    Raises:
        ValueError: If `num_envs` is below 1.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs {num_envs} must be at least 1")
    dtype = storage_dtype(np.dtype(env.observation_space.dtype))

    def reset(key: Key[Array, ""]) -> tuple[State, Shaped[Array, "N ..."]]:
        states, obs = jax.vmap(env.reset)(jax.random.split(key, num_envs))
        return states, obs.astype(dtype)

    def step_one(key: Key[Array, ""], state: State, last: Bool[Array, ""], action: Array) -> tuple[State, StepResult]:
        reset_key, step_key = jax.random.split(key)
        fresh, first_obs = env.reset(reset_key)
        stepped, obs, reward, terminated, truncated = env.step(step_key, state, action)
        state, obs = jax.tree.map(partial(jnp.where, last), (fresh, first_obs), (stepped, obs))
        if env.observe is not None:
            obs = env.observe(state)
        # The flags of an ignored step have no meaning: `advance` ends no episode there.
        flags = jnp.bool_(terminated), jnp.bool_(truncated), jnp.bool_(env.valid is None or env.valid(state))
        mask = None if env.action_mask is None else jnp.bool_(env.action_mask(state))
        return state, StepResult(obs.astype(dtype), jnp.float32(reward), *flags, mask)

    def step(
        key: Key[Array, ""], states: State, last: Bool[Array, " N"], actions: Int[Array, " N"]
    ) -> tuple[State, StepResult]:
        return jax.vmap(step_one)(jax.random.split(key, num_envs), states, last, actions)

    return VectorEnv(reset, step, num_envs, None if env.action_mask is None else jax.vmap(env.action_mask))


class TimeLimited(NamedTuple):
    """The state of an environment with a `time_limit`.

    Attributes:
        state: State of the inner environment.
        step: Steps taken in this episode, int32.
    """

    state: State
    step: Int[Array, ""]


def time_limit(env: FunctionalEnv, max_steps: int) -> FunctionalEnv:
    """Return the same environment, with episodes truncated after `max_steps` steps.

    An episode that terminates in step `max_steps` has both flags, as in `gymnasium.wrappers.TimeLimit`.

    Raises:
        ValueError: If `max_steps` is below 1.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps {max_steps} must be at least 1")

    def reset(key: Key[Array, ""]) -> tuple[TimeLimited, Array]:
        state, obs = env.reset(key)
        return TimeLimited(state, jnp.zeros((), jnp.int32)), obs

    def step(key: Key[Array, ""], state: TimeLimited, action: Array) -> tuple[TimeLimited, Array, Array, Array, Array]:
        inner, obs, reward, terminated, truncated = env.step(key, state.state, action)
        steps = state.step + 1
        return TimeLimited(inner, steps), obs, reward, terminated, truncated | (steps >= max_steps)

    of_state = {"observe": env.observe, "draw": env.draw, "valid": env.valid, "action_mask": env.action_mask}
    return env._replace(reset=reset, step=step, **apply_to_inner_state(of_state))


def apply_to_inner_state(functions: dict[str, Any]) -> dict[str, Any]:
    """Make functions of an environment's state (or None) take a state that holds it as its attribute `state`."""

    def unwrapped(function: Callable[[State], Array] | None) -> Callable[[Any], Array] | None:
        return None if function is None else lambda state: function(state.state)

    return {name: unwrapped(function) for name, function in functions.items()}


def random_rollout(env: FunctionalEnv, key: Key[Array, ""], *, frames: int, frame_stack: int | None) -> np.ndarray:
    """Return stacks `[frames or more, H, W, K]` that a uniformly random policy sees, without final observations.

    Steps eight environments in parallel, twice as often as `frames` needs. The counterpart of `random_stacks`.
    """
    envs = vectorise(env, 8)
    num_steps = 2 * -(-frames // envs.num_envs)

    @jax.jit
    def play(key: Key[Array, ""]) -> tuple[Array, Array]:
        reset_key, key = jax.random.split(key)
        states, obs = envs.reset(reset_key)

        def step(carry: Any, key: Key[Array, ""]) -> tuple[Any, tuple[Array, Array]]:
            states, cursor = carry
            step_key, action_key = jax.random.split(key)
            actions = random_actions(action_key, envs.num_envs, int(env.action_space.n), cursor.mask)
            states, step_result = envs.step(step_key, states, cursor.last, actions)
            _, next_cursor, _ = advance(cursor, actions, step_result, frame_stack=frame_stack)
            return (states, next_cursor), (cursor.stack, cursor.last)

        return jax.lax.scan(step, (states, envs.open(states, obs, frame_stack)), jax.random.split(key, num_steps))[1]

    stacks, last = jax.device_get(play(key))
    return stacks[~last]
