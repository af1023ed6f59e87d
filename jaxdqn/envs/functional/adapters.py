"""Adapters: gymnax's and gymnasium's functional environments become ours, and ours become gymnasium environments."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.experimental.functional import FuncEnv
from jaxtyping import Array, Int, Key

from jaxdqn.envs.functional.env import FunctionalEnv, State


def from_gymnax(env: Any, params: Any = None) -> FunctionalEnv:
    """Return a gymnax environment, of version 1.0 or older, as a functional environment.

    It calls `reset_env` and `step_env`, which do not reset automatically, so that the true final observation is a row.
    From gymnax 1.0 on, an environment has `is_truncated`, which separates its time limit from a terminal state, as the
    six values of its `step` do. An older one says only that an episode is done, also at the time limit: every end then
    counts as a terminal state, because there is no way to know. To truncate at the time limit there, give it `params`
    whose own limit is never reached and wrap the result in `time_limit`.

    Args:
        env: The environment, recognised by its methods; gymnax is not imported. If `step_env` returns `terminated` and
            `truncated` itself, six values in all, they are used.
        params: Its parameters; None: `env.default_params`.

    Raises:
        ValueError: If its actions are not discrete, or it has no `reset_env` and `step_env`.
    """
    name = getattr(env, "name", type(env).__name__)
    if not (hasattr(env, "reset_env") and hasattr(env, "step_env")):
        raise ValueError(f"env {name} has no reset_env and step_env: it is not a gymnax environment")
    params = env.default_params if params is None else params
    actions, observations = env.action_space(params), env.observation_space(params)
    if not hasattr(actions, "n"):
        raise ValueError(f"env {name} has actions {actions}: DQN needs discrete actions")

    def reset(key: Key[Array, ""]) -> tuple[State, Array]:
        obs, state = env.reset_env(key, params)
        return state, jnp.asarray(obs)

    def step(key: Key[Array, ""], state: State, action: Int[Array, ""]) -> tuple[State, Array, Array, Array, Array]:
        obs, state, reward, terminated, *truncated, _ = env.step_env(key, state, action, params)
        if not truncated:
            truncated = [env.is_truncated(state, params) if hasattr(env, "is_truncated") else False]
        return state, jnp.asarray(obs), jnp.float32(reward), jnp.bool_(terminated), jnp.bool_(truncated[0])

    first = jax.eval_shape(reset, jax.random.key(0))[1]
    bounds = (getattr(observations, "low", -np.inf), getattr(observations, "high", np.inf))
    low, high = (np.broadcast_to(np.asarray(bound), first.shape).astype(first.dtype) for bound in bounds)
    return FunctionalEnv(
        reset=reset,
        step=step,
        observation_space=gym.spaces.Box(low, high, dtype=first.dtype),
        action_space=gym.spaces.Discrete(int(actions.n)),
    )


def from_func_env(env: FuncEnv) -> FunctionalEnv:
    """Return one of gymnasium's functional environments as ours. They have no time limit: wrap it in `time_limit`.

    Args:
        env: The environment; JAX must be able to trace its functions.

    Raises:
        ValueError: If its actions are not discrete from 0, or its observations are not a `Box`.
    """
    actions, observations = env.action_space, env.observation_space
    if not isinstance(actions, gym.spaces.Discrete) or actions.start != 0:
        raise ValueError(f"env {type(env).__name__} has actions {actions}: DQN needs discrete actions from 0")
    if not isinstance(observations, gym.spaces.Box):
        raise ValueError(f"env {type(env).__name__} has observations {observations}: they must be a Box")

    def reset(key: Key[Array, ""]) -> tuple[State, Array]:
        state_key, obs_key = jax.random.split(key)
        state = env.initial(state_key)
        return state, jnp.asarray(env.observation(state, obs_key), observations.dtype)

    def step(key: Key[Array, ""], state: State, action: Int[Array, ""]) -> tuple[State, Array, Array, Array, Array]:
        step_key, obs_key, reward_key, end_key = jax.random.split(key, 4)
        next_state = env.transition(state, action, step_key)
        obs = jnp.asarray(env.observation(next_state, obs_key), observations.dtype)
        reward = jnp.float32(env.reward(state, action, next_state, reward_key))
        return next_state, obs, reward, jnp.bool_(env.terminal(next_state, end_key)), jnp.bool_(False)

    return FunctionalEnv(reset, step, observations, actions)


class GymnasiumEnv(gym.Env):
    """A functional environment as a gymnasium environment: for evaluation, pictures and the host loop.

    Attributes:
        functional: The functional environment.
    """

    def __init__(self, functional: FunctionalEnv, render_mode: str | None = None) -> None:
        """Wrap an environment. Its functions are compiled at their first call, once for all that share them.

        Args:
            functional: The environment.
            render_mode: `"rgb_array"`, or None for no drawing.

        Raises:
            ValueError: If the environment does not have this render mode.
        """
        modes = [] if functional.draw is None else ["rgb_array"]
        if render_mode is not None and render_mode not in modes:
            known = " or ".join(map(repr, [*modes, None]))
            raise ValueError(f"render_mode {render_mode!r} is not supported by this environment: use {known}")
        self.functional = functional
        self.metadata = {"render_modes": modes, "render_fps": 50}
        self.render_mode = render_mode
        self.observation_space = functional.observation_space
        self.action_space = functional.action_space
        self._state: State = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Return a first observation; the same seed gives the same episode for the same actions."""
        super().reset(seed=seed)
        # One key per reset, from gymnasium's own generator, which continues if no seed is given.
        self._key, reset_key = jax.random.split(jax.random.key(int(self.np_random.integers(2**31))))
        self._state, obs = _compiled(self.functional.reset)(reset_key)
        return np.asarray(obs), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step. See `gymnasium.Env.step`.

        Raises:
            gymnasium.error.ResetNeeded: Before the first `reset`.
        """
        if self._state is None:
            raise gym.error.ResetNeeded("call reset before step")
        step = _compiled_step(self.functional.step)
        self._key, step_result = step(self._key, self._state, np.int32(action))
        self._state, obs, reward, terminated, truncated = step_result
        return np.asarray(obs), float(reward), bool(terminated), bool(truncated), self._info()

    def _info(self) -> dict[str, Any]:
        mask = self.functional.action_mask
        return {} if mask is None else {"action_mask": np.asarray(_compiled(mask)(self._state), np.int8)}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything that determines its future, except gymnasium's generator; it must have been reset."""
        leaves = jax.tree.leaves((self._key, self._state))
        return {f"leaf{index}": np.asarray(_as_numbers(leaf)) for index, leaf in enumerate(leaves)}

    def set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from the state that `arrays` returned; it must have been reset, and have the same structure."""
        old, structure = jax.tree.flatten((self._key, self._state))
        new = [jnp.asarray(arrays[f"leaf{index}"]) for index in range(len(old))]
        leaves = [jax.random.wrap_key_data(y) if is_key(x) else y for x, y in zip(old, new, strict=True)]
        self._key, self._state = jax.tree.unflatten(structure, leaves)

    def render(self) -> Any:
        """Return a picture of the current state; None if there is no render mode.

        Raises:
            gymnasium.error.ResetNeeded: Before the first `reset`.
        """
        if self.render_mode is None or self.functional.draw is None:
            return None
        if self._state is None:
            raise gym.error.ResetNeeded("call reset before render")
        return np.asarray(_compiled(self.functional.draw)(self._state))


def is_key(leaf: Any) -> bool:
    """Return whether a leaf is an array of typed random keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_numbers(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


@lru_cache(maxsize=64)
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function)


@lru_cache(maxsize=64)
def _compiled_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a compiled step that splits its key itself: `(key, state, action) -> (next key, result of the step)`."""

    @jax.jit
    def split_and_step(key: Key[Array, ""], state: State, action: Int[Array, ""]) -> tuple[Key[Array, ""], Any]:
        key, step_key = jax.random.split(key)
        return key, step(step_key, state, action)

    return split_and_step
