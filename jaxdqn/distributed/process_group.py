"""The processes of a run and how they stay synchronised: each shares its values, errors and signals with all others.

Every process runs the same program and reaches the same exchanges in the same order. At an exchange, all wait for all,
and each sends a few bytes of JSON through the collectives of `jax.distributed`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxdqn.signals import Stop

BLOCK = 1024
"""Bytes that are sent at once, including four for the length; a longer record takes a second collective."""

_SHARED_ERRORS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (FloatingPointError, OSError, ValueError)}
"""Exceptions that are raised with the same type on all processes."""

_LOST_PROCESS_WORDS = ("gloo", "nccl", "connection closed", "connection reset", "socket", "unavailable", "coordination")


class ProcessError(RuntimeError):
    """Another process of the run has failed; the message says which, and how."""


class LostProcessError(RuntimeError):
    """Another process of the run was lost: it ended without reporting an error."""


class Exchange:
    """The values that the processes exchange in `ProcessGroup.exchange`.

    Attributes:
        local: This process's value, as JSON; set within the block.
        gathered: The values of all processes, in their order; available after the block.
    """

    def __init__(self) -> None:
        """Start with no values."""
        self.local: Any = None
        self.gathered: list[Any] = []


class ProcessGroup:
    """The processes that `jax.distributed` has joined; a group of one if it has joined none.

    Attributes:
        index: Index of this process.
        count: Number of processes.
    """

    def __init__(self, stop: Stop | None = None) -> None:
        """Make the group of all joined processes.

        Args:
            stop: This process's stop request; at the next exchange, a request to one process becomes one to all.
        """
        self._begin(jax.process_index(), jax.process_count(), stop or Stop())

    @classmethod
    def alone(cls) -> ProcessGroup:
        """Return a group of this process only, even if others have joined."""
        group = cls.__new__(cls)
        group._begin(0, 1, Stop())
        return group

    def _begin(self, index: int, count: int, stop: Stop) -> None:
        self.index, self.count = index, count
        self._stop = stop
        self._shared_error: BaseException | None = None
        self._pending: Exception | None = None
        self._exchanges = 0

    @property
    def is_first(self) -> bool:
        """Return whether this process is the first one, which writes the run's folder."""
        return self.index == 0

    def is_known_to_all(self, error: BaseException | None) -> bool:
        """Return whether all processes know of an error, so that all of them end because of it."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return self._stop.ended_on_all
        if isinstance(error, FloatingPointError):  # exchanged, or raised by the learner, which is the same on all
            return True
        return error is not None and (error is self._shared_error or self.is_known_to_all(error.__cause__))

    @contextlib.contextmanager
    def exchange(self) -> Iterator[Exchange]:
        """Run a block that succeeds on all processes, or raises on all. Nothing in it may wait for another process.

        Raises:
            ProcessError: If another process failed; `ValueError`, `OSError` and `FloatingPointError` keep their type.
            LostProcessError: If another process was lost.
        """
        exchange = Exchange()
        if self.count == 1:
            yield exchange
            exchange.gathered = [exchange.local]
            return
        failed: Exception | None = None
        try:
            yield exchange
        except Exception as error:
            failed = error
        failed, self._pending, self._exchanges = failed or self._pending, None, self._exchanges + 1
        record = {"local": exchange.local, "failed": _type_and_message(failed), "exchanges": self._exchanges}
        record["stop"] = self._stop.signal_number
        found = self._gather(record)
        self._stop.agree(max(other["stop"] for other in found))
        for index, other in enumerate(found):
            if other["failed"] is not None and failed is None:
                name, message = other["failed"]
                failed = _SHARED_ERRORS.get(name, ProcessError)(f"process {index} of {self.count}: {message}")
            if other["exchanges"] != self._exchanges and failed is None:
                ours = f"process {self.index} at exchange {self._exchanges}"
                failed = ProcessError(f"process {index} is at exchange {other['exchanges']} and {ours}")
        if failed is not None:
            self._shared_error = failed
            raise failed
        exchange.gathered = [other["local"] for other in found]

    @contextlib.contextmanager
    def defer_error(self) -> Iterator[None]:
        """Defer an error of the block to the next exchange, if there are several processes."""
        try:
            yield
        except Exception as error:
            if self.count == 1:
                raise
            self._pending = error

    def broadcast_from_first(self, function: Callable[[], Any]) -> Any:
        """Return on all processes what a function returns on the first, as JSON. Raises what `exchange` raises."""
        with self.exchange() as exchange:
            if self.is_first:
                exchange.local = function()
        return exchange.gathered[0]

    def broadcast_arrays(self, tree: Any) -> Any:
        """Return the first process's arrays in place of this process's, on the same devices."""
        if self.count == 1:
            return tree
        with self.name_lost_process():
            found = multihost_utils.broadcast_one_to_all(tree)
        return jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), found, tree)

    def check_identical(self, tree: Any) -> None:
        """Raise `ProcessError` on all processes if arrays that must be identical on all of them are not."""
        if self.count == 1:
            return
        with self.exchange() as exchange:
            leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
            exchange.local = hashlib.sha256(b"".join(leaves)).hexdigest()
        with self.exchange():
            for index, digest in enumerate(exchange.gathered):
                if digest != exchange.gathered[0]:
                    raise ProcessError(f"the learner of process {index} differs from that of process 0: resume the run")

    @contextlib.contextmanager
    def name_lost_process(self) -> Iterator[None]:
        """Turn an error that JAX raises when a process is lost into a `LostProcessError` with JAX's message."""
        try:
            yield
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            message = " ".join(str(error).split())
            if self.count == 1 or not any(word in message.lower() for word in _LOST_PROCESS_WORDS):
                raise
            others = [str(index) for index in range(self.count) if index != self.index]
            which = f"process {others[0]}" if len(others) == 1 else f"one of the processes {', '.join(others)}"
            raise LostProcessError(f"{which} was lost ({message[:200]})") from error

    def _gather(self, record: Any) -> list[Any]:
        with self.name_lost_process():
            return _interruptible(_gather, json.dumps(record).encode())


def _interruptible(function: Callable[[bytes], list[Any]], data: bytes) -> list[Any]:
    """Run a function in a daemon thread and return its result; signals are handled meanwhile and may interrupt it."""
    future: Future[list[Any]] = Future()

    def run() -> None:
        try:
            future.set_result(function(data))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="exchange", daemon=True).start()
    return future.result()


def _gather(data: bytes) -> list[Any]:
    first = np.zeros(BLOCK, np.uint8)
    first[:4] = np.frombuffer(len(data).to_bytes(4, "big"), np.uint8)
    first[4 : 4 + len(data)] = np.frombuffer(data, np.uint8)[: BLOCK - 4]
    blocks = multihost_utils.process_allgather(first)
    sizes = [int.from_bytes(block[:4].tobytes(), "big") for block in blocks]
    rest = max(sizes) - (BLOCK - 4)
    if rest > 0:
        # A power of two of blocks: each size is compiled as a program of its own.
        more = np.zeros(BLOCK << (-(-rest // BLOCK) - 1).bit_length(), np.uint8)
        more[: max(len(data) - (BLOCK - 4), 0)] = np.frombuffer(data, np.uint8)[BLOCK - 4 :]
        blocks = np.concatenate([blocks, multihost_utils.process_allgather(more)], axis=1)
    return [json.loads(block[4 : 4 + size].tobytes()) for block, size in zip(blocks, sizes, strict=True)]


def _type_and_message(error: Exception | None) -> list[str] | None:
    if error is None:
        return None
    kind = next((kind for kind in _SHARED_ERRORS.values() if isinstance(error, kind)), type(error))
    return [kind.__name__, str(error) or type(error).__name__]
