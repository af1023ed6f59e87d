"""Environments in lockstep, in the one row format: gymnasium's `NEXT_STEP` autoreset."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from jaxdqn.envs.pixels import EnvFn
from jaxdqn.envs.rows import Ended
from jaxdqn.envs.workers import WorkerVectorEnv
from jaxdqn.preprocessing import next_stack


def make_vector_env(env_fn: EnvFn, num_envs: int, *, workers: bool = False) -> gym.vector.VectorEnv:
    """`num_envs` copies of an environment, in `NEXT_STEP` autoreset mode.

    The step after an episode's end ignores its action and returns the next episode's first observation, so that the
    true final observation is a row of its own.

    Args:
        env_fn: Builds one environment.
        num_envs: How many.
        workers: Whether each has a process of its own (`WorkerVectorEnv`) or all are stepped in this one.
    """
    if workers:
        return WorkerVectorEnv(env_fn, num_envs)
    return gym.vector.SyncVectorEnv([env_fn] * num_envs, autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP)


class Episode(NamedTuple):
    """A finished episode: its raw return and its length in steps."""

    raw_return: float
    length: int


def episodes_of(ended: Ended) -> list[Episode]:
    """The episodes that ended, in the order of time and then of environments; NumPy arrays."""
    places = np.nonzero(ended.ended)
    pairs = zip(ended.raw_return[places], ended.length[places], strict=True)
    return [Episode(float(raw_return), int(length)) for raw_return, length in pairs]


def random_stacks(env: gym.Env, *, frames: int, frame_stack: int, seed: int) -> np.ndarray:
    """Stacks `[frames or more, H, W, K]` of whole episodes of a uniformly random policy, at most twice the frames.

    Each episode's final observation is left out, as TorchRL's `ObservationNorm.init_stats` does.
    """
    rng = np.random.default_rng(seed)
    stacks: list[Any] = []
    num_actions = int(env.action_space.n)  # type: ignore[attr-defined]  # discrete, as `make_env_fn` has checked
    while len(stacks) < frames:
        obs, _ = env.reset(seed=int(rng.integers(2**31)))
        stack = next_stack(None, obs[None], np.ones(1, bool), frame_stack)
        done = False
        while not done and len(stacks) < 2 * frames:  # an environment need not end its episodes
            stacks.append(stack[0])
            obs, _, terminated, truncated, _ = env.step(int(rng.integers(num_actions)))
            stack = next_stack(stack, obs[None], np.zeros(1, bool), frame_stack)
            done = terminated or truncated
    return np.stack(stacks)
