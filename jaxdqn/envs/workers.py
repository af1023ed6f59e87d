"""Environments in processes of their own, which draw while the learner learns."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import gymnasium as gym

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
        try:
            return self.step_wait(timeout=STEP_TIMEOUT)
        except multiprocessing.TimeoutError as error:
            self.close(terminate=True)  # closed politely it would wait for that environment for ever
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
