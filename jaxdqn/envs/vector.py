"""Environments in lockstep, in the one row format: gymnasium's `NEXT_STEP` autoreset."""

from __future__ import annotations

import gymnasium as gym

from jaxdqn.envs.pixels import EnvFn
from jaxdqn.envs.workers import WorkerVectorEnv


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
