"""Environments in processes of their own, which draw while the learner learns."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gymnasium as gym
from gymnasium.vector.async_vector_env import AsyncState

from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.envs.vector.worker_process import (
    NO_WORKERS,
    UNGUARDED,
    InWorker,
    WorkerError,
    WorkerStartError,
    exit_if_imported_by_worker,
    work,
)

STEP_TIMEOUT = 120.0
"""Seconds that a step or a reset of all environments may take."""


def start_method() -> str:
    """How workers are started: from a server that has never imported JAX, whose threads do not survive a fork.

    Spawned where the system has no such server. Either way a worker imports the script that started it, which needs
    `if __name__ == "__main__":` around what it does (`exit_if_imported_by_worker`).
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload(["jaxdqn.envs.vector.worker_process"])
    return "forkserver"


class WorkerVectorEnv(gym.vector.AsyncVectorEnv):
    """`num_envs` copies of an environment, each in a process of its own, in `NEXT_STEP` autoreset mode."""

    def __init__(self, env_fn: EnvFn, num_envs: int) -> None:
        """Start the workers.

        Args:
            env_fn: Builds one environment; sent to the workers by cloudpickle.
            num_envs: How many.

        Raises:
            Exception: What `env_fn` raises in this process.
            WorkerStartError: If an environment cannot be built in a worker, or a worker cannot be started.
        """
        exit_if_imported_by_worker()
        if multiprocessing.current_process().daemon:
            raise WorkerStartError(f"a daemonic process can start no others: {NO_WORKERS}")
        self._doing: list[str] | None = None  # None until all environments are built
        mode = gym.vector.AutoresetMode.NEXT_STEP
        try:
            makers = [InWorker(env_fn)] * num_envs
            super().__init__(makers, context=start_method(), autoreset_mode=mode, worker=work)
        except (BrokenPipeError, ConnectionResetError, EOFError):
            code = self._exit_code()
            self._kill()
            if code == UNGUARDED:
                found = (
                    "imports the script that starts it, which begins to train again: put what the script does under "
                    '`if __name__ == "__main__":`, or'
                )
            else:
                found = f"crashed or was ended before it was built, with exit code {code}:"
            raise WorkerStartError(f"the process of an environment {found} {NO_WORKERS}") from None
        except BaseException:
            self._kill()
            raise
        self._doing = ["a call"] * num_envs

    def _exit_code(self) -> int | None:
        """Return the exit code of a worker that has ended by itself."""
        for process in self.processes:
            process.join(0.1)  # one that ended a moment ago may not be known to have ended yet
        return next((process.exitcode for process in self.processes if process.exitcode), None)

    def _kill(self) -> None:
        """Kill the workers: they ignore SIGTERM, and during a step all requests."""
        for process in getattr(self, "processes", []):
            if process.pid is not None:
                process.kill()
                process.join()
        self.closed = True

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
                self._wait_for_answers()
                return wait(timeout=0)
        except multiprocessing.TimeoutError as error:
            silent = [index for index, pipe in enumerate(self.parent_pipes) if not pipe.poll(0)]
            # Closed politely it would wait for that environment for ever.
            raise self._ended(silent, f"has not answered within {STEP_TIMEOUT:g} s") from error

    def _wait_for_answers(self) -> None:
        """Wait until all workers have answered, or `STEP_TIMEOUT` is over, in which all processes ran.

        A slice of a second that took much longer was one in which the machine slept, or Ctrl-Z stopped all of them.
        """
        left, silent = STEP_TIMEOUT, list(self.parent_pipes)
        while silent and left > 0:
            piece, began = min(1.0, left), time.monotonic()
            ready = multiprocessing.connection.wait(silent, piece)
            left -= min(time.monotonic() - began, 2 * piece)
            silent = [pipe for pipe in silent if pipe not in ready]

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
            index, kind, said, trace = self.error_queue.get()
            if self._doing is None:
                self._kill()
                error: WorkerError = WorkerStartError(
                    f"an environment cannot be built in a process of its own: {said}; register or define it in a "
                    f'module that can be imported, outside of `if __name__ == "__main__":`, or {NO_WORKERS}'
                )
            else:
                error = self._ended([index], f"raised {said if said.startswith(kind) else f'{kind}: {said}'}")
            if self._doing is not None or kind != "ValueError":  # whose message is enough
                error.add_note(trace)
            raise error

    def _ended(self, indices: list[int], what: str) -> WorkerError:
        """End all workers, and say which one was at fault."""
        self.close(terminate=True)
        doing = self._doing or []
        which = " and ".join(f"environment {index} ({doing[index]})" for index in indices) or "an environment"
        return WorkerError(f"{which} {what}")

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """End the workers: politely, unless one may never answer."""
        if terminate or self._state != AsyncState.DEFAULT:
            terminate = True
            self._kill()
            self._state = AsyncState.DEFAULT
        super().close_extras(timeout=timeout, terminate=terminate)
