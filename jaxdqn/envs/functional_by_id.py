"""Look up functional environments by gymnasium id or in a `GymnasiumEnv`, with the observations that replay holds."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from jaxtyping import Array, Bool

from jaxdqn.envs.functional.adapters import GymnasiumEnv
from jaxdqn.envs.functional.env import FunctionalEnv, State, apply_to_inner_state
from jaxdqn.envs.gymnasium.spaces import image_rule_of, is_image, learns_from_images, vector_spec
from jaxdqn.envs.gymnasium.wrappers import PixelObservation, VectorObservation
from jaxdqn.envs.registry import functional_ids, functional_maker, is_made_of_functional
from jaxdqn.observations import ImageRule, ObsSpec, apply_rule


def functional_env(env: str, *, pixels: bool | None = True, frame_size: int = 64) -> FunctionalEnv:
    """Return the functional form of an environment.

    Args:
        env: Gymnasium id.
        pixels: Whether observations are grey frames `[frame_size, frame_size]` uint8 (True) or a vector (False); None:
            the same as in its gymnasium form.
        frame_size: Side of the frames.

    Raises:
        ValueError: If the environment has no functional form.
    """
    if env not in functional_ids():
        raise ValueError(
            f"env {env!r} cannot be stepped on the device: use one of {', '.join(functional_ids())}, an env_fn that "
            "returns a GymnasiumEnv, or --loop host"
        )
    if pixels is None and is_made_of_functional(env):
        return functional_maker(env)(frame_size=frame_size)
    return functional_maker(env)(pixels=bool(pixels), frame_size=frame_size)


def functional_form(env: gym.Env) -> FunctionalEnv:
    """Return the functional environment inside a user's `GymnasiumEnv`.

    Args:
        env: What `make_env_fn` builds from an `env_fn`.

    Raises:
        ValueError: If it is not a `GymnasiumEnv`, or has wrappers, which the device would not step.
    """
    inner = env.env if isinstance(env, PixelObservation | VectorObservation) else env
    if not isinstance(inner, GymnasiumEnv):
        found = type(inner.unwrapped).__name__
        if isinstance(inner.unwrapped, GymnasiumEnv):
            found += f" wrapped in {type(inner).__name__}"
        raise ValueError(
            f"env_fn returns {found}, which cannot be stepped on the device: return a GymnasiumEnv without wrappers, "
            "or use --loop host"
        )
    return inner.functional


def with_observations(
    env: FunctionalEnv,
    *,
    pixels: bool | None = None,
    frame_size: int = 64,
    colour: bool = False,
    frame_stack: int | None = None,
) -> tuple[FunctionalEnv, ObsSpec]:
    """Return a functional environment whose observations are what replay holds; the counterpart of `make_env_fn`.

    Args:
        env: The environment.
        pixels: Whether the agent learns from images. See `Config`.
        frame_size: Side to which images are resized.
        colour: Whether images that are resized keep their colours.
        frame_stack: Images per stack; None: 4 if images are resized, else 1.

    Returns:
        The environment, and the format of its observations.

    Raises:
        ValueError: If its actions or its observations are not supported.
    """
    space, actions = env.observation_space, env.action_space
    if not isinstance(actions, gym.spaces.Discrete) or actions.start != 0:
        raise ValueError(f"env has action_space {actions}: DQN needs discrete actions from 0")
    if not learns_from_images(space, pixels, "of the device"):
        if colour:
            raise ValueError("colour True needs images, but env gives vectors: set colour to False")
        return env, vector_spec(space)
    if not is_image(space):
        raise ValueError(f"env has observation_space {space}: pixels=True needs images on the device")
    rule = image_rule_of(space, frame_size, colour=colour)
    spec = rule.spec(space.shape, np.dtype(space.dtype), frame_stack)
    if rule.resized or rule.channels_first:
        env = _with_rule(env, rule, spec._replace(stack=None))
    return env, spec


class Validated(NamedTuple):
    """The state of an environment whose float images become bytes, in which NaN can no longer be seen.

    Attributes:
        state: State of the inner environment.
        valid: Whether the image is finite and in [0, 1].
    """

    state: State
    valid: Bool[Array, ""]


def _with_rule(env: FunctionalEnv, rule: ImageRule, spec: ObsSpec) -> FunctionalEnv:
    if rule.resized and np.issubdtype(env.observation_space.dtype, np.floating):
        env = env._replace(**_functions_with_validity(env.reset, env.step, env.observe, env.draw, env.action_mask))
    reset, step, observe = _functions_with_rule(env.reset, env.step, env.observe, rule)
    dtype: Any = np.dtype(spec.dtype)
    space = gym.spaces.Box(0, dtype.type(spec.scale), spec.shape, dtype)
    return env._replace(reset=reset, step=step, observe=observe, observation_space=space)


@lru_cache  # the same functions for the same arguments, so that they are compiled once
def _functions_with_rule(reset: Any, step: Any, observe: Any, rule: ImageRule) -> tuple[Any, Any, Any]:
    def reset_with_rule(key: Array) -> tuple[State, Array]:
        state, obs = reset(key)
        return state, apply_rule(rule, obs)

    def step_with_rule(key: Array, state: State, action: Array) -> tuple[Any, ...]:
        state, obs, *rest = step(key, state, action)
        return state, apply_rule(rule, obs), *rest

    observe_with_rule = None if observe is None else lambda state: apply_rule(rule, observe(state))
    return reset_with_rule, step_with_rule, observe_with_rule


@lru_cache
def _functions_with_validity(reset: Any, step: Any, observe: Any, draw: Any, action_mask: Any) -> dict[str, Any]:
    """Return the functions of an environment whose state also says whether its image is valid."""

    def with_validity(state: State, obs: Array) -> Validated:
        return Validated(state, ((obs >= 0) & (obs <= 1)).all())

    def reset_with_validity(key: Array) -> tuple[Validated, Array]:
        state, obs = reset(key)
        return with_validity(state, obs), obs

    def step_with_validity(key: Array, state: Validated, action: Array) -> tuple[Any, ...]:
        inner, obs, *rest = step(key, state.state, action)
        return with_validity(inner, obs), obs, *rest

    functions = {"reset": reset_with_validity, "step": step_with_validity, "valid": lambda state: state.valid}
    return functions | apply_to_inner_state({"observe": observe, "draw": draw, "action_mask": action_mask})
