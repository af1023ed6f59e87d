"""Functional environments by gymnasium's ids, and the ones within gymnasium's, as the agent sees them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from jaxtyping import Array, Bool

from jaxdqn.envs.functional.adapters import GymnasiumEnv
from jaxdqn.envs.functional.env import FunctionalEnv, State, of_inner_state
from jaxdqn.envs.gymnasium.spaces import image_rule_of, is_image, learns_from_images, vector_spec
from jaxdqn.envs.gymnasium.wrappers import PixelObservation, VectorObservation
from jaxdqn.envs.registry import functional_ids, functional_maker, is_made_of_functional
from jaxdqn.observations import ImageRule, ObsSpec, apply_rule


def functional_env(env: str, *, pixels: bool | None = True, frame_size: int = 64) -> FunctionalEnv:
    """The functional twin of an environment.

    Args:
        env: Gymnasium id.
        pixels: Whether it is seen as grey frames `[frame_size, frame_size]` uint8 or as a vector; None: as gymnasium's
            form of it is.
        frame_size: Side of the frames.

    Raises:
        ValueError: If there is none.
    """
    if env not in functional_ids():
        raise ValueError(
            f"env {env!r} cannot be stepped on the device: use one of {', '.join(functional_ids())}, an env_fn that "
            "gives a GymnasiumEnv, or --loop host"
        )
    if pixels is None and is_made_of_functional(env):
        return functional_maker(env)(frame_size=frame_size)
    return functional_maker(env)(pixels=bool(pixels), frame_size=frame_size)


def functional_form(env: gym.Env) -> FunctionalEnv:
    """The functional environment that a user's gymnasium environment is made of.

    Args:
        env: What `make_env_fn` builds of an `env_fn`.

    Raises:
        ValueError: If it is no `GymnasiumEnv`, or if wrappers stand around it, which the device would not step.
    """
    inner = env.env if isinstance(env, PixelObservation | VectorObservation) else env
    if not isinstance(inner, GymnasiumEnv):
        found = type(inner.unwrapped).__name__
        if isinstance(inner.unwrapped, GymnasiumEnv):
            found += f" within {type(inner).__name__}"
        raise ValueError(
            f"env_fn gives {found}, which cannot be stepped on the device: let it give a GymnasiumEnv with nothing "
            "around it, or use --loop host"
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
    """A functional environment whose observations are what replay holds, as `make_env_fn` makes gymnasium's so.

    Args:
        env: The environment.
        pixels: As `Config` has it.
        frame_size: Side to which images are resized.
        colour: Whether images that are resized keep their colours.
        frame_stack: Images to a stack; None: 4 of those that are resized, 1 of others.

    Raises:
        ValueError: If its actions or its observations are none that can be learned from.
    """
    space, actions = env.observation_space, env.action_space
    if not isinstance(actions, gym.spaces.Discrete) or actions.start != 0:
        raise ValueError(f"env has action_space {actions}: DQN needs discrete actions from 0")
    if not learns_from_images(space, pixels, "of the device"):
        if colour:
            raise ValueError("colour True needs images, and env gives vectors: set it to False")
        return env, vector_spec(space)
    if not is_image(space):
        raise ValueError(f"env has observation_space {space}: pixels=True needs images on the device")
    rule = image_rule_of(space, frame_size, colour=colour)
    spec = rule.spec(space.shape, space.dtype, frame_stack)
    if rule.resized or rule.channels_first:
        env = _with_rule(env, rule, spec._replace(stack=None))
    return env, spec


class Validated(NamedTuple):
    """The state of an environment whose floats are made bytes, which cannot say that one was none.

    Attributes:
        state: Its own.
        valid: Whether its image is finite and in [0, 1].
    """

    state: State
    valid: Bool[Array, ""]


def _with_rule(env: FunctionalEnv, rule: ImageRule, spec: ObsSpec) -> FunctionalEnv:
    if rule.resized and np.issubdtype(env.observation_space.dtype, np.floating):
        own = _validated(env.reset, env.step, env.observe, env.draw)
        env = env._replace(**own)
    reset, step, observe = _functions(env.reset, env.step, env.observe, rule)
    dtype: Any = np.dtype(spec.dtype)
    space = gym.spaces.Box(0, dtype.type(spec.scale), spec.shape, dtype)
    return env._replace(reset=reset, step=step, observe=observe, observation_space=space)


@lru_cache  # the same functions for the same arguments, so that they are compiled once
def _functions(reset: Any, step: Any, observe: Any, rule: ImageRule) -> tuple[Any, Any, Any]:
    def reset_seen(key: Array) -> tuple[State, Array]:
        state, obs = reset(key)
        return state, apply_rule(rule, obs)

    def step_seen(key: Array, state: State, action: Array) -> tuple[Any, ...]:
        state, obs, *rest = step(key, state, action)
        return state, apply_rule(rule, obs), *rest

    return reset_seen, step_seen, None if observe is None else lambda state: apply_rule(rule, observe(state))


@lru_cache
def _validated(reset: Any, step: Any, observe: Any, draw: Any) -> dict[str, Any]:
    """The functions of an environment whose state says whether its image is one."""

    def judged(state: State, obs: Array) -> Validated:
        return Validated(state, ((obs >= 0) & (obs <= 1)).all())

    def reset_judged(key: Array) -> tuple[Validated, Array]:
        state, obs = reset(key)
        return judged(state, obs), obs

    def step_judged(key: Array, state: Validated, action: Array) -> tuple[Any, ...]:
        inner, obs, *rest = step(key, state.state, action)
        return judged(inner, obs), obs, *rest

    own = of_inner_state({"observe": observe, "draw": draw})
    return {"reset": reset_judged, "step": step_judged, **own, "valid": lambda state: state.valid}
