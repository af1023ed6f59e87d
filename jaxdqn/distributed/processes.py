"""The processes of a run, and how they keep together: what one of them finds out, all of them are told.

Every process runs the same program and comes to the same places in the same order; there, all wait for all. What passes
is a few bytes of JSON, by the collectives of the runtime that has joined the processes (`jax.distributed`).
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
"""Bytes that are passed at once, the four that say how many there are included; longer records take a second turn."""

_KINDS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (FloatingPointError, OSError, ValueError)}
"""What is raised as such on all processes."""

_LOST_PROCESS_WORDS = ("gloo", "nccl", "connection closed", "connection reset", "socket", "unavailable", "coordination")


class ProcessError(RuntimeError):
    """Another process of the run has failed; the message says which, and how."""


class LostProcessError(RuntimeError):
    """Another process of the run is gone, without a word."""


class Exchange:
    """What a process tells the others at a place, and what all have told.

    Attributes:
        local: As JSON takes it; set within the block.
        gathered: Each process's, in their order; there after the block.
    """

    def __init__(self) -> None:
        """Nothing has been said yet."""
        self.local: Any = None
        self.gathered: list[Any] = []


class ProcessGroup:
    """The processes that `jax.distributed` has joined; one alone where it has joined none.

    Attributes:
        index: Which of them this one is.
        count: How many there are.
    """

    def __init__(self, stop: Stop | None = None) -> None:
        """Look at what has been joined.

        Args:
            stop: This process's; what is asked of one of them is asked of all, wherever they meet.
        """
        self._begin(jax.process_index(), jax.process_count(), stop or Stop())

    @classmethod
    def alone(cls) -> ProcessGroup:
        """This process by itself, whatever has been joined."""
        group = cls.__new__(cls)
        group._begin(0, 1, Stop())
        return group

    def _begin(self, index: int, count: int, stop: Stop) -> None:
        self.index, self.count = index, count
        self._stop = stop
        self._told: BaseException | None = None
        self._pending: Exception | None = None
        self._turn = 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that keeps the run's folder."""
        return self.index == 0

    def is_known_to_all(self, error: BaseException | None) -> bool:
        """Whether all processes know of an error, and are on their way out as well."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return self._stop.left
        if isinstance(error, FloatingPointError):  # of one process it was told, of the learner it is the same on all
            return True
        return error is not None and (error is self._told or self.is_known_to_all(error.__cause__))

    @contextlib.contextmanager
    def exchange(self) -> Iterator[Exchange]:
        """A block that ends well on all processes, or on none. Nothing in it may wait for another process.

        Raises:
            ProcessError: If another has failed; `ValueError`, `OSError` and `FloatingPointError` are raised as such.
            LostProcessError: If another is gone.
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
        failed, self._pending, self._turn = failed or self._pending, None, self._turn + 1
        record = {"told": exchange.local, "failed": _in_words(failed), "stop": self._stop.asked, "turn": self._turn}
        found = self._gather(record)
        self._stop.agree(max(other["stop"] for other in found))
        for index, other in enumerate(found):
            if other["failed"] is not None and failed is None:
                name, said = other["failed"]
                failed = _KINDS.get(name, ProcessError)(f"process {index} of {self.count}: {said}")
            if other["turn"] != self._turn and failed is None:
                failed = ProcessError(f"process {index} is at turn {other['turn']}, and {self.index} at {self._turn}")
        if failed is not None:
            self._told = failed
            raise failed
        exchange.gathered = [other["told"] for other in found]

    @contextlib.contextmanager
    def later(self) -> Iterator[None]:
        """A block whose error, if the process is not alone, is raised at the next place where all meet."""
        try:
            yield
        except Exception as error:
            if self.count == 1:
                raise
            self._pending = error

    def broadcast_from_first(self, function: Callable[[], Any]) -> Any:
        """What a function gives on the first process, as JSON takes it, on all; raises as `together`."""
        with self.exchange() as exchange:
            if self.is_first:
                exchange.local = function()
        return exchange.gathered[0]

    def broadcast_arrays(self, tree: Any) -> Any:
        """The first process's arrays in place of this process's, on the same devices."""
        if self.count == 1:
            return tree
        with self.name_lost_process():
            found = multihost_utils.broadcast_one_to_all(tree)
        return jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), found, tree)

    def check_identical(self, tree: Any) -> None:
        """Raise `ProcessError` on all processes where arrays that should be the same on all of them are not."""
        if self.count == 1:
            return
        with self.exchange() as exchange:
            leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
            exchange.local = hashlib.sha256(b"".join(leaves)).hexdigest()
        with self.exchange():
            for index, digest in enumerate(exchange.gathered):
                if digest != exchange.gathered[0]:
                    raise ProcessError(
                        f"the learner of process {index} has parted from that of process 0: resume the run"
                    )

    @contextlib.contextmanager
    def name_lost_process(self) -> Iterator[None]:
        """What JAX raises within where a process is gone becomes a `LostProcessError`, with JAX's own words."""
        try:
            yield
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            said = " ".join(str(error).split())
            if self.count == 1 or not any(word in said.lower() for word in _LOST_PROCESS_WORDS):
                raise
            others = [str(index) for index in range(self.count) if index != self.index]
            which = f"process {others[0]}" if len(others) == 1 else f"one of the processes {', '.join(others)}"
            raise LostProcessError(f"{which} was lost ({said[:200]})") from error

    def _gather(self, record: Any) -> list[Any]:
        with self.name_lost_process():
            return _interruptible(_gather, json.dumps(record).encode())


def _interruptible(function: Callable[[bytes], list[Any]], data: bytes) -> list[Any]:
    """What a function gives, in a thread that nothing waits for: a signal is heard meanwhile, and may end this."""
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
        more = np.zeros(BLOCK << (-(-rest // BLOCK) - 1).bit_length(), np.uint8)  # few sizes, each a program
        more[: max(len(data) - (BLOCK - 4), 0)] = np.frombuffer(data, np.uint8)[BLOCK - 4 :]
        blocks = np.concatenate([blocks, multihost_utils.process_allgather(more)], axis=1)
    return [json.loads(block[4 : 4 + size].tobytes()) for block, size in zip(blocks, sizes, strict=True)]


def _in_words(error: Exception | None) -> list[str] | None:
    if error is None:
        return None
    kind = next((kind for kind in _KINDS.values() if isinstance(error, kind)), type(error))
    return [kind.__name__, str(error) or type(error).__name__]
