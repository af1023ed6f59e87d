"""Environments in worker processes, which step and draw while the learner learns."""

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
    SYNC_ADVICE,
    UNGUARDED_EXIT_CODE,
    WorkerEnvFn,
    WorkerError,
    WorkerStartError,
    exit_if_imported_by_worker,
    run_worker,
)

STEP_TIMEOUT = 120.0
"""Longest time in seconds for a step or a reset of all environments."""


def start_method() -> str:
    """Return multiprocessing's start method: fork from a server without JAX, whose threads do not survive a fork.

    Systems without a fork server spawn. In both cases a worker imports the script that started it, which must put its
    code under `if __name__ == "__main__":` (`exit_if_imported_by_worker`).
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload(["jaxdqn.envs.vector.worker_process"])
    return "forkserver"


class WorkerVectorEnv(gym.vector.AsyncVectorEnv):
    """`num_envs` copies of an environment, each in its own process, in `NEXT_STEP` autoreset mode."""

    def __init__(self, env_fn: EnvFn, num_envs: int) -> None:
        """Start the workers.

        Args:
            env_fn: Builds one environment; sent to the workers by cloudpickle.
            num_envs: Number of environments.

        Raises:
            Exception: What `env_fn` raises in this process.
            WorkerStartError: If an environment cannot be built in a worker, or a worker cannot be started.
        """
        exit_if_imported_by_worker()
        if multiprocessing.current_process().daemon:
            raise WorkerStartError(f"a daemonic process cannot start worker processes: {SYNC_ADVICE}")
        self._requests: list[str] | None = None  # None until all environments are built
        mode = gym.vector.AutoresetMode.NEXT_STEP
        try:
            makers = [WorkerEnvFn(env_fn)] * num_envs
            super().__init__(makers, context=start_method(), autoreset_mode=mode, worker=run_worker)
        except (BrokenPipeError, ConnectionResetError, EOFError):
            code = self._exit_code()
            self._kill()
            if code == UNGUARDED_EXIT_CODE:
                fault = (
                    "imports the script that started it, which would train again: put the code of the script under "
                    '`if __name__ == "__main__":`, or'
                )
            else:
                fault = f"crashed or was killed before the environment was built, with exit code {code}:"
            raise WorkerStartError(f"a worker process {fault} {SYNC_ADVICE}") from None
        except BaseException:
            self._kill()
            raise
        self._requests = ["a call"] * num_envs

    def _exit_code(self) -> int | None:
        """Return the exit code of a worker that has ended by itself."""
        for process in self.processes:
            process.join(0.1)  # the exit code of a process that has just ended may not be known yet
        return next((process.exitcode for process in self.processes if process.exitcode), None)

    def _kill(self) -> None:
        """Kill the workers: they ignore SIGTERM, and during a step they ignore all requests."""
        for process in getattr(self, "processes", []):
            if process.pid is not None:
                process.kill()
                process.join()
        self.closed = True

    def reset(self, **options: Any) -> Any:
        """Reset every environment. Raises the same errors as `step`."""
        self._requests = ["its reset"] * self.num_envs
        self.reset_async(**options)
        return self._wait_for_result(self.reset_wait)

    def step(self, actions: Any) -> Any:
        """Step every environment.

        Raises:
            WorkerError: If an environment raises, has not answered after `STEP_TIMEOUT` seconds, or has lost its
                process. All workers have been ended then.
        """
        self.step_async(actions)
        return self._wait_for_result(self.step_wait)

    def step_async(self, actions: Any) -> None:
        """Send the actions to the workers."""
        self._requests = [f"action {action}" for action in actions]
        with self._raise_if_dead():
            super().step_async(actions)

    def _wait_for_result(self, wait: Callable[..., Any]) -> Any:
        try:
            with self._raise_if_dead():
                self._wait_until_ready()
                return wait(timeout=0)
        except multiprocessing.TimeoutError as error:
            silent = [index for index, pipe in enumerate(self.parent_pipes) if not pipe.poll(0)]
            # A normal close would wait for that environment forever.
            raise self._end_workers(silent, f"has not answered within {STEP_TIMEOUT:g} s") from error

    def _wait_until_ready(self) -> None:
        """Wait until all workers have answered, or for `STEP_TIMEOUT` seconds of running time.

        It waits in slices of a second. If a slice took much longer, the machine slept or Ctrl-Z stopped all processes,
        so only part of it is counted.
        """
        seconds_left, waiting = STEP_TIMEOUT, list(self.parent_pipes)
        while waiting and seconds_left > 0:
            time_slice, started = min(1.0, seconds_left), time.monotonic()
            ready = multiprocessing.connection.wait(waiting, time_slice)
            seconds_left -= min(time.monotonic() - started, 2 * time_slice)
            waiting = [pipe for pipe in waiting if pipe not in ready]

    @contextlib.contextmanager
    def _raise_if_dead(self) -> Iterator[None]:
        """Raise a `WorkerError` if a pipe is closed because a worker has died."""
        try:
            yield
        except (BrokenPipeError, ConnectionResetError, EOFError) as error:
            for process in self.processes:
                process.join(0.1)  # a process that was just killed may still count as alive
            dead = [index for index, process in enumerate(self.processes) if not process.is_alive()]
            raise self._end_workers(dead, "has lost its process, which was killed or has crashed") from error

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        if not all(successes):
            index, error_type, message, trace = self.error_queue.get()
            if self._requests is None:
                self._kill()
                error: WorkerError = WorkerStartError(
                    f"an environment cannot be built in a worker process: {message}; register or define it in a "
                    f'module that can be imported, outside of `if __name__ == "__main__":`, or {SYNC_ADVICE}'
                )
            else:
                fault = message if message.startswith(error_type) else f"{error_type}: {message}"
                error = self._end_workers([index], f"raised {fault}")
            if self._requests is not None or error_type != "ValueError":  # the message of a ValueError is enough
                error.add_note(trace)
            raise error

    def _end_workers(self, indices: list[int], fault: str) -> WorkerError:
        """End all workers, and return an error that names the environments that failed and their requests."""
        self.close(terminate=True)
        requests = self._requests or []
        which = " and ".join(f"environment {index} ({requests[index]})" for index in indices) or "an environment"
        return WorkerError(f"{which} {fault}")

    def close_extras(self, timeout: float | None = None, terminate: bool = False, **others: Any) -> None:
        """End the workers: by a request, or by a kill if one may never answer. There are no other options."""
        if terminate or self._state != AsyncState.DEFAULT:
            terminate = True
            self._kill()
            self._state = AsyncState.DEFAULT
        super().close_extras(timeout=timeout, terminate=terminate, **others)
