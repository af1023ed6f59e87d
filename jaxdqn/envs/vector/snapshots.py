"""The state of gymnasium environments as arrays, where it is known to be all: CartPole and functional ones.

gymnasium has no general way to save an environment, so anything else has no snapshot.
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from jaxdqn.envs.gymnasium.wrappers import PixelObservation, VectorObservation
from jaxdqn.envs.vector.episodes import WithoutInfo

Snapshot = dict[str, np.ndarray]

_KNOWN_WRAPPERS = (WithoutInfo, PixelObservation, VectorObservation, TimeLimit, OrderEnforcing, PassiveEnvChecker)
_HALF = 2**64


def snapshot_envs(envs: gym.vector.VectorEnv) -> Snapshot | None:
    """The state of each environment, stacked `[N, ...]`; None where one cannot be saved, or is in another process."""
    if not isinstance(envs, gym.vector.SyncVectorEnv):
        return None
    found = [_snapshot(env) for env in envs.envs]
    whole = [each for each in found if each is not None]
    if len(whole) < len(found):
        return None
    return {name: np.stack([each[name] for each in whole]) for name in whole[0]}


def restore_envs(envs: gym.vector.SyncVectorEnv, snapshot: Snapshot, last: np.ndarray) -> None:
    """Bring environments that were just reset to where others stood.

    Args:
        envs: As many, built alike.
        snapshot: What `snapshot_envs` gave.
        last: Which of them have ended their episode, and are reset by the next step `[N]`.
    """
    for index, env in enumerate(envs.envs):
        _restore(env, {name: values[index] for name, values in snapshot.items()})
    envs._autoreset_envs = np.array(last, bool)


def _snapshot(env: gym.Env) -> Snapshot | None:
    elapsed = -1
    while isinstance(env, gym.Wrapper):
        if type(env) not in _KNOWN_WRAPPERS:
            return None
        if isinstance(env, TimeLimit):
            elapsed = int(env._elapsed_steps or 0)
        env = env.env
    inner = _inner_state(env)
    if inner is None:
        return None
    return {**inner, "elapsed": np.asarray(elapsed), "random": _random_state(env.np_random)}


def _restore(env: gym.Env, snapshot: Snapshot) -> None:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TimeLimit):
            elapsed: Any = int(snapshot["elapsed"])
            env._elapsed_steps = elapsed
        env = env.env
    env.np_random.bit_generator.state = _from_random_state(snapshot["random"])
    if isinstance(env, CartPoleEnv):
        env.state = np.array(snapshot["state"])
        beyond: Any = int(snapshot["beyond"])
        env.steps_beyond_terminated = None if beyond < 0 else beyond
    else:
        env.set_arrays(snapshot)  # type: ignore[attr-defined]  # a GymnasiumEnv, as when it was taken


def _inner_state(env: gym.Env) -> Snapshot | None:
    generator = getattr(env.np_random, "bit_generator", None)  # an environment may have one of another kind
    if not isinstance(generator, np.random.PCG64):
        return None
    if type(env) is CartPoleEnv:
        beyond = env.steps_beyond_terminated
        return {"state": np.asarray(env.state, np.float64), "beyond": np.asarray(-1 if beyond is None else beyond)}
    # It imports JAX: if it has not been imported, no environment is one of its own.
    adapters = sys.modules.get("jaxdqn.envs.functional.adapters")
    if adapters is None or type(env) is not adapters.GymnasiumEnv:
        return None
    return env.arrays()  # type: ignore[attr-defined]


def _random_state(generator: np.random.Generator) -> np.ndarray:
    state: Any = generator.bit_generator.state
    numbers = state["state"]["state"], state["state"]["inc"]
    halves = [half for number in numbers for half in divmod(number, _HALF)]
    return np.array([*halves, state["has_uint32"], state["uinteger"]], np.uint64)


def _from_random_state(values: np.ndarray) -> dict[str, Any]:
    high, low, inc_high, inc_low, has, spare = (int(value) for value in values)
    state = {"state": high * _HALF + low, "inc": inc_high * _HALF + inc_low}
    return {"bit_generator": "PCG64", "state": state, "has_uint32": has, "uinteger": spare}
