"""Environments in processes of their own, which draw while the learner learns."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gymnasium as gym
from gymnasium.vector.async_vector_env import AsyncState

from jaxdqn.envs.pixels import EnvFn

STEP_TIMEOUT = 120.0
"""Seconds that a step or a reset of all environments may take."""


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
        try:
            super().__init__([_InWorker(env_fn)] * num_envs, context=start_method(), autoreset_mode=mode)
        except (BrokenPipeError, ConnectionResetError, EOFError) as error:
            raise WorkerError("an environment cannot be built in a process of its own: its error is above") from error

    def reset(self, **options: Any) -> Any:
        """Reset every environment; raises as `step` does."""
        self._doing = ["its reset"] * self.num_envs
        self.reset_async(**options)
        return self._answer(self.reset_wait)

    def step(self, actions: Any) -> Any:
        """Step every environment.

        Raises:
            WorkerError: If one raises, has not answered after `STEP_TIMEOUT` seconds, or its process has ended; by then
                all workers have been ended.
        """
        self.step_async(actions)
        return self._answer(self.step_wait)

    def step_async(self, actions: Any) -> None:
        """Send the actions."""
        self._doing = [f"action {action}" for action in actions]
        with self._dead_workers():
            super().step_async(actions)

    def _answer(self, wait: Callable[..., Any]) -> Any:
        try:
            with self._dead_workers():
                return wait(timeout=STEP_TIMEOUT)
        except multiprocessing.TimeoutError as error:
            silent = [index for index, pipe in enumerate(self.parent_pipes) if not pipe.poll(0)]
            # Closed politely it would wait for that environment for ever.
            raise self._ended(silent, f"has not answered within {STEP_TIMEOUT:g} s") from error

    @contextlib.contextmanager
    def _dead_workers(self) -> Iterator[None]:
        try:
            yield
        except (BrokenPipeError, ConnectionResetError, EOFError) as error:
            for process in self.processes:
                process.join(0.1)  # one that was killed a moment ago may not be known to be dead yet
            ended = [index for index, process in enumerate(self.processes) if not process.is_alive()]
            raise self._ended(ended, "has lost its process, which was ended from outside or has crashed") from error

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        if not all(successes):
            index, kind, value, trace = self.error_queue.get()
            said = " ".join(str(value).split())
            error = self._ended([index], f"raised {kind.__name__}: {said}")
            error.add_note(trace)
            raise error

    def _ended(self, indices: list[int], what: str) -> WorkerError:
        """End all workers, and say which one was at fault."""
        self.close(terminate=True)
        which = " and ".join(f"environment {index} ({self._doing[index]})" for index in indices) or "an environment"
        return WorkerError(f"{which} {what}")

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """End the workers: politely, unless one may never answer."""
        if terminate or self._state != AsyncState.DEFAULT:
            terminate = True
            for process in self.processes:  # they are deaf to what ends others, and in mid-step to everything
                process.kill()
                process.join()
            self._state = AsyncState.DEFAULT
        super().close_extras(timeout=timeout, terminate=terminate)


class WorkerError(RuntimeError):
    """An environment in a process of its own that has failed; the message names it, and what it was asked for."""


class _InWorker:
    """Builds the environment, in a worker deaf to Ctrl-C and SIGTERM, which go to every process of a group.

    The process that trains closes its workers itself.
    """

    def __init__(self, env_fn: EnvFn) -> None:
        self._env_fn = env_fn
        self._trainer = os.getpid()

    def __call__(self) -> gym.Env:
        if os.getpid() != self._trainer:  # gymnasium builds one environment in the trainer, too, to look at it
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return self._env_fn()
