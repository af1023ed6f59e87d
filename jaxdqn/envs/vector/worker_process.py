"""Run the worker process of an environment: build it, step it, and report errors to the trainer as text."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import traceback
from typing import Any

import cloudpickle
import gymnasium as gym
from gymnasium.vector.async_vector_env import _async_worker

from jaxdqn.envs.gymnasium.making import describe_error
from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.standard_streams import guard_streams

WORKER, ROLLOUT = "Worker<WorkerVectorEnv>", "jaxdqn-rollout"
"""Prefixes of the names of our processes: gymnasium names the workers, `jaxdqn.training.obs_stats` its own process."""

UNGUARDED_EXIT_CODE = 77
"""Exit code of a process that imported a script without a guard, and so would have started to train again."""

SYNC_ADVICE = "set collector to sync"
"""Advice if an environment cannot have its own process."""


class WorkerError(RuntimeError):
    """Raised if an environment in its own process fails; the message names the environment and the request."""


class WorkerStartError(WorkerError, ValueError):
    """Raised if an environment cannot be built in its own process."""


def exit_if_imported_by_worker() -> None:
    """End this process if multiprocessing started it and it is still importing the script that trains.

    Every function that starts training must call this: without `if __name__ == "__main__":` in the script, the import
    would train as well. A worker ends silently, since the trainer reports the cause.

    Raises:
        RuntimeError: If the process belongs to another program that uses multiprocessing.
    """
    process = multiprocessing.current_process()
    if not getattr(process, "_inheriting", False):  # multiprocessing itself checks this as well
        return
    if process.name.startswith((WORKER, ROLLOUT)):
        os._exit(UNGUARDED_EXIT_CODE)
    raise RuntimeError(
        "a process started by multiprocessing imports this script, which trains: put the code of the script under "
        '`if __name__ == "__main__":`'
    )


class WorkerEnvFn:
    """Build the environment in a worker that ignores Ctrl-C and SIGTERM, which reach every process of a group.

    The trainer closes its workers itself.
    """

    def __init__(self, env_fn: EnvFn) -> None:
        self._env_fn: EnvFn | None = env_fn
        self._trainer_pid = os.getpid()
        try:
            self._pickled = cloudpickle.dumps(env_fn)
        except Exception as error:  # pickling may raise anything
            raise WorkerStartError(
                f"env_fn cannot be sent to a worker process: {describe_error(error)}; create or open what it needs "
                f"inside env_fn, or {SYNC_ADVICE}"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        # As bytes: the worker unpickles them later, in code that can report an error.
        return {"_env_fn": None, "_trainer_pid": self._trainer_pid, "_pickled": self._pickled}

    def __call__(self) -> gym.Env:
        """Build the environment."""
        if os.getpid() != self._trainer_pid:  # gymnasium also builds one environment in the trainer
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return (self._env_fn or pickle.loads(self._pickled))()


class _ErrorQueue:
    """Send errors as text: some cannot be pickled, others cannot be unpickled by the trainer."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def put(self, error: tuple[int, type[BaseException], BaseException, str]) -> None:
        """Send the index of the worker, and the type, the message and the traceback of the error."""
        index, error_type, value, trace = error
        self._queue.put((index, error_type.__name__, describe_error(value), trace))


def run_worker(index: int, env_fn: EnvFn, pipe: Any, parent_pipe: Any, shared: Any, queue: Any, *rest: Any) -> None:
    """Run a worker for gymnasium. It prints no traceback: the trainer reports errors, unless it has ended."""
    guard_streams()
    parent_pipe.close()  # otherwise this process would not notice the end of the trainer
    errors: Any = _ErrorQueue(queue)
    try:
        env = env_fn()
    except (Exception, SystemExit) as error:
        errors.put((index, type(error), error, traceback.format_exc()))
        with contextlib.suppress(OSError, EOFError):
            pipe.recv()
            pipe.send((None, False))
        return
    with contextlib.suppress(Exception):
        _async_worker(index, lambda: env, pipe, parent_pipe, shared, errors, *rest)
