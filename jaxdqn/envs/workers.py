"""Environments in processes of their own, which draw while the learner learns."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import gymnasium as gym
import numpy as np

from jaxdqn.envs.pixels import EnvFn

STEP_TIMEOUT = 120.0
"""Seconds that a step of all environments may take."""


def start_method() -> str:
    """How workers are started: from a server that has never imported JAX, whose threads do not survive a fork.

    Spawned where the system has no such server. Either way a worker imports the script that started it: one that makes
    environments in its body needs `if __name__ == "__main__":`.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload(["jaxdqn.envs.pixels"])
    return "forkserver"


class WorkerVectorEnv(gym.vector.AsyncVectorEnv):
    """`num_envs` copies of an environment, each in a process of its own, in `NEXT_STEP` autoreset mode."""

    def __init__(self, env_fn: EnvFn, num_envs: int) -> None:
        """Start the workers; an error in `env_fn` is raised here.

        Args:
            env_fn: Builds one environment; sent to the workers by cloudpickle.
            num_envs: How many.
        """
        mode = gym.vector.AutoresetMode.NEXT_STEP
        super().__init__([_InWorker(env_fn)] * num_envs, context=start_method(), autoreset_mode=mode)

    def step(self, actions: Any) -> Any:
        """Step every environment.

        Raises:
            TimeoutError: If one has not answered after `STEP_TIMEOUT` seconds.
        """
        self.step_async(actions)
        return finish(self)


class WorkerEnv:
    """One environment in a process of its own: a step is begun and finished apart, so that several run at once."""

    def __init__(self, env_fn: EnvFn) -> None:
        """Start the worker; an error in `env_fn` is raised here."""
        mode = gym.vector.AutoresetMode.DISABLED
        self._envs = gym.vector.AsyncVectorEnv([_InWorker(env_fn)], context=start_method(), autoreset_mode=mode)

    def reset(self, seed: int) -> np.ndarray:
        """The first observation of an episode."""
        return self._envs.reset(seed=[seed])[0][0]

    def begin(self, action: int) -> None:
        """Send an action."""
        self._envs.step_async(np.array([action]))

    def finish(self) -> tuple[np.ndarray, float, bool, bool]:
        """Observation, reward, terminated, truncated; raises `TimeoutError` as `WorkerVectorEnv.step` does."""
        obs, reward, terminated, truncated, _ = finish(self._envs)
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0])

    def close(self) -> None:
        """End the worker."""
        self._envs.close()


class LocalEnv:
    """One environment in this process, with the same methods as `WorkerEnv`."""

    def __init__(self, env_fn: EnvFn) -> None:
        """Build it."""
        self._env = env_fn()
        self._action = 0

    def reset(self, seed: int) -> np.ndarray:
        """The first observation of an episode."""
        return self._env.reset(seed=seed)[0]

    def begin(self, action: int) -> None:
        """Remember an action."""
        self._action = action

    def finish(self) -> tuple[np.ndarray, float, bool, bool]:
        """Observation, reward, terminated, truncated."""
        obs, reward, terminated, truncated, _ = self._env.step(self._action)
        return obs, float(reward), bool(terminated), bool(truncated)

    def close(self) -> None:
        """Close it."""
        self._env.close()


def finish(envs: gym.vector.AsyncVectorEnv) -> Any:
    """Wait for a step that was begun, at most `STEP_TIMEOUT` seconds."""
    try:
        return envs.step_wait(timeout=STEP_TIMEOUT)
    except multiprocessing.TimeoutError as error:
        envs.close(terminate=True)  # closed politely it would wait for that environment for ever
        raise TimeoutError(f"an environment has not answered a step within {STEP_TIMEOUT:.0f} s") from error


class _InWorker:
    """Builds the environment, in a worker deaf to Ctrl-C, which a terminal sends to every process of a group.

    The process that trains closes its workers itself.
    """

    def __init__(self, env_fn: EnvFn) -> None:
        self._env_fn = env_fn
        self._trainer = os.getpid()

    def __call__(self) -> gym.Env:
        if os.getpid() != self._trainer:  # gymnasium builds one environment in the trainer, too, to look at it
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self._env_fn()
