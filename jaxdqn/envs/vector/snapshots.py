"""Save and restore the complete state of gymnasium environments as arrays: CartPole and functional environments.

gymnasium has no general way to save an environment, so all others have no snapshot.
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
_WORD = 2**64  # the 128-bit state of PCG64 is saved as two words of 64 bits


def snapshot_envs(envs: gym.vector.VectorEnv) -> Snapshot | None:
    """Return the state of each environment, stacked `[N, ...]`; None if one cannot be saved or has its own process."""
    if not isinstance(envs, gym.vector.SyncVectorEnv):
        return None
    found = [_snapshot(env) for env in envs.envs]
    snapshots = [each for each in found if each is not None]
    if len(snapshots) < len(found):
        return None
    return {name: np.stack([each[name] for each in snapshots]) for name in snapshots[0]}


def restore_envs(envs: gym.vector.SyncVectorEnv, snapshot: Snapshot, last: np.ndarray) -> None:
    """Restore the state of environments that were just reset.

    Args:
        envs: Environments of the same number, built in the same way.
        snapshot: Result of `snapshot_envs`.
        last: Whether the episode of each has ended, so that the next step resets it `[N]`.
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
    generator = getattr(env.np_random, "bit_generator", None)  # an environment may have another type of generator
    if not isinstance(generator, np.random.PCG64):
        return None
    if type(env) is CartPoleEnv:
        beyond = env.steps_beyond_terminated
        return {"state": np.asarray(env.state, np.float64), "beyond": np.asarray(-1 if beyond is None else beyond)}
    # The module imports JAX. If it has not been imported, no environment is a GymnasiumEnv.
    adapters = sys.modules.get("jaxdqn.envs.functional.adapters")
    if adapters is None or type(env) is not adapters.GymnasiumEnv:
        return None
    return env.arrays()  # type: ignore[attr-defined]


def _random_state(generator: np.random.Generator) -> np.ndarray:
    state: Any = generator.bit_generator.state
    numbers = state["state"]["state"], state["state"]["inc"]
    words = [word for number in numbers for word in divmod(number, _WORD)]
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64)


def _from_random_state(values: np.ndarray) -> dict[str, Any]:
    high, low, inc_high, inc_low, has, spare = (int(value) for value in values)
    state = {"state": high * _WORD + low, "inc": inc_high * _WORD + inc_low}
    return {"bit_generator": "PCG64", "state": state, "has_uint32": has, "uinteger": spare}
