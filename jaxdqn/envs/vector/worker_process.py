"""The worker process of an environment: build it, step it, and report errors to the trainer in words."""

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

from jaxdqn.envs.gymnasium.making import in_words
from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.standard_streams import guard_streams

WORKER, ROLLOUT = "Worker<WorkerVectorEnv>", "jaxdqn-rollout"
"""First part of the names of our processes: gymnasium names the workers, `jaxdqn.training.obs_stats` names its own."""

UNGUARDED = 77
"""Exit code of a process that would have trained again because it imported the script."""

NO_WORKERS = "set collector to sync"
"""Advice for an environment that cannot have a process of its own."""


class WorkerError(RuntimeError):
    """An environment in a process of its own that has failed; the message names it, and what it was asked for."""


class WorkerStartError(WorkerError, ValueError):
    """An environment that cannot be built in a process of its own."""


def exit_if_imported_by_worker() -> None:
    """End this process if multiprocessing started it and it still imports the script that trains.

    Call this wherever a script begins to train: without `if __name__ == "__main__":` the import would train, too. A
    worker ends silently, since the trainer reports the cause.

    Raises:
        RuntimeError: If the process belongs to another program that uses multiprocessing.
    """
    process = multiprocessing.current_process()
    if not getattr(process, "_inheriting", False):  # multiprocessing checks this, too
        return
    if process.name.startswith((WORKER, ROLLOUT)):
        os._exit(UNGUARDED)
    raise RuntimeError(
        "a process that multiprocessing has started imports this script, which trains: put what it does under "
        '`if __name__ == "__main__":`'
    )


class InWorker:
    """Build the environment in a worker that ignores Ctrl-C and SIGTERM, which go to every process of a group.

    The trainer closes its workers itself.
    """

    def __init__(self, env_fn: EnvFn) -> None:
        self._env_fn: EnvFn | None = env_fn
        self._trainer = os.getpid()
        try:
            self._sent = cloudpickle.dumps(env_fn)
        except Exception as error:  # pickling may raise anything
            raise WorkerStartError(
                f"what builds the environment cannot be sent to a process of its own: {in_words(error)}; let it make "
                f"or open what it needs when it is called, or {NO_WORKERS}"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        # As bytes: the worker reads them where it can report an error in them.
        return {"_env_fn": None, "_trainer": self._trainer, "_sent": self._sent}

    def __call__(self) -> gym.Env:
        """Build it."""
        if os.getpid() != self._trainer:  # gymnasium also builds one environment in the trainer
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return (self._env_fn or pickle.loads(self._sent))()


class _InWords:
    """Send errors as words: some cannot be pickled, others cannot be unpickled by the trainer."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def put(self, error: tuple[int, type[BaseException], BaseException, str]) -> None:
        """Send the index of a worker, and the kind, the words and the traceback of the error."""
        index, kind, value, trace = error
        self._queue.put((index, kind.__name__, in_words(value), trace))


def work(index: int, env_fn: EnvFn, pipe: Any, parent_pipe: Any, shared: Any, queue: Any, *rest: Any) -> None:
    """Run a worker for gymnasium; print no traceback, since the trainer reports errors, or has ended."""
    guard_streams()
    parent_pipe.close()  # else this process would not notice the end of the trainer
    errors: Any = _InWords(queue)
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
