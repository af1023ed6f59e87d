"""Environments whose step is begun and finished apart: in this process, or each in one of its own."""

from __future__ import annotations

import multiprocessing
import signal
import warnings

import gymnasium as gym
import numpy as np

from jaxdqn.envs.pixels import EnvFn

STEP_TIMEOUT = 120.0
"""Seconds that a step may take."""


def start_method() -> str:
    """How workers are started: from a server that has never imported JAX, whose threads do not survive a fork.

    Spawned where the system has no such server. Either way a worker imports the script that started it: one that makes
    environments in its body needs `if __name__ == "__main__":`.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload(["__main__", "jaxdqn.envs.pixels"])
    return "forkserver"


class WorkerEnv:
    """One environment in a process of its own: a step is begun and finished apart, so that several run at once."""

    def __init__(self, env_fn: EnvFn) -> None:
        """Start the worker; an error in `env_fn` is raised here."""
        mode = gym.vector.AutoresetMode.DISABLED
        self._envs = gym.vector.AsyncVectorEnv([_InWorker(env_fn)], context=start_method(), autoreset_mode=mode)
        self._pending = False

    def reset(self, seed: int) -> np.ndarray:
        """The first observation of an episode."""
        return self._envs.reset(seed=[seed])[0][0]

    def begin(self, action: int) -> None:
        """Send an action."""
        self._envs.step_async(np.array([action]))
        self._pending = True

    def finish(self) -> tuple[np.ndarray, float, bool, bool]:
        """Observation, reward, terminated, truncated.

        Raises:
            TimeoutError: If the worker has not answered after `STEP_TIMEOUT` seconds.
        """
        try:
            obs, reward, terminated, truncated, _ = self._envs.step_wait(timeout=STEP_TIMEOUT)
        except multiprocessing.TimeoutError as error:
            raise TimeoutError(f"an environment has not answered a step within {STEP_TIMEOUT:.0f} s") from error
        self._pending = False
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0])

    def close(self) -> None:
        """End the worker, in whatever state an error or an interrupt has left it."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # gymnasium warns of a step that is still awaited
                self._envs.close(terminate=self._pending)
        except (OSError, EOFError):  # it is dead, or its pipe was left in the middle of a message
            for process in self._envs.processes:
                process.kill()
                process.join()
            self._envs.closed = True


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


class _InWorker:
    """Builds the environment, in a worker deaf to Ctrl-C, which a terminal sends to every process of a group.

    The process that trains closes its workers itself.
    """

    def __init__(self, env_fn: EnvFn) -> None:
        self._env_fn = env_fn

    def __call__(self) -> gym.Env:
        if multiprocessing.parent_process() is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self._env_fn()
