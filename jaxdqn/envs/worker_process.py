"""What runs in the process of an environment, and how the trainer is told what goes wrong there."""

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

from jaxdqn.envs.making import in_words
from jaxdqn.envs.pixels import EnvFn
from jaxdqn.streams import guard_streams

WORKER, ROLLOUT = "Worker<WorkerVectorEnv>", "jaxdqn-rollout"
"""What names of our processes begin with: gymnasium names the workers, and `jaxdqn.run.rollout` its own."""

UNGUARDED = 77
"""Exit code of one whose import of the script would have begun to train anew."""

NO_WORKERS = "set collector to sync"
"""What helps where environments cannot have processes of their own."""


class WorkerError(RuntimeError):
    """An environment in a process of its own that has failed; the message names it, and what it was asked for."""


class WorkerStartError(WorkerError, ValueError):
    """An environment that cannot be built in a process of its own."""


def end_if_imported_by_worker() -> None:
    """End this process if it is one that multiprocessing has just started, and that still imports the script.

    To be called by what a script calls to train: without `if __name__ == "__main__":` the import trains, too.

    Raises:
        RuntimeError: If another program's process imports it; a worker ends without a word, as the trainer says why.
    """
    process = multiprocessing.current_process()
    if not getattr(process, "_inheriting", False):  # what multiprocessing itself asks before it starts a process
        return
    if process.name.startswith((WORKER, ROLLOUT)):
        os._exit(UNGUARDED)
    raise RuntimeError(
        "a process that multiprocessing has started imports this script, which trains: put what it does under "
        '`if __name__ == "__main__":`'
    )


class InWorker:
    """Builds the environment, in a worker deaf to Ctrl-C and SIGTERM, which go to every process of a group.

    The process that trains closes its workers itself.
    """

    def __init__(self, env_fn: EnvFn) -> None:
        self._env_fn: EnvFn | None = env_fn
        self._trainer = os.getpid()
        try:
            self._sent = cloudpickle.dumps(env_fn)
        except Exception as error:  # whatever a part of it says to being pickled
            raise WorkerStartError(
                f"what builds the environment cannot be sent to a process of its own: {in_words(error)}; let it make "
                f"or open what it needs when it is called, or {NO_WORKERS}"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        # As bytes, which are read where an error in them can be told.
        return {"_env_fn": None, "_trainer": self._trainer, "_sent": self._sent}

    def __call__(self) -> gym.Env:
        """Build it."""
        if os.getpid() != self._trainer:  # gymnasium builds one environment in the trainer, too, to look at it
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return (self._env_fn or pickle.loads(self._sent))()


class _InWords:
    """A queue of errors that sends them in words: not every error can be pickled, or read by the trainer."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def put(self, error: tuple[int, type[BaseException], BaseException, str]) -> None:
        """Send the index of a worker, and the kind, the words and the traceback of what was raised in it."""
        index, kind, value, trace = error
        self._queue.put((index, kind.__name__, in_words(value), trace))


def work(index: int, env_fn: EnvFn, pipe: Any, parent_pipe: Any, shared: Any, queue: Any, *rest: Any) -> None:
    """A worker, as gymnasium runs it; it prints no traceback: the trainer is told, or is gone."""
    guard_streams()
    parent_pipe.close()  # else this process would not hear that the trainer is gone
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
