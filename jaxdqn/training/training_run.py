"""A run as a user's loop sees it: an iterator that can be left at any batch without losing what was learned."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Generator, Iterator
from types import TracebackType

from jaxdqn.signals import FINISH, Stop, is_free
from jaxdqn.training.trainer import RunProgress


class TrainingRun(Iterator[RunProgress]):
    """What `train` and `resume` give: progress after each batch; nothing is done before the first is asked for.

        for step in jaxdqn.train(config):            with jaxdqn.train(config) as run:
            if solved(step):                             for step in run:
                break                                        ...

    Leaving the loop keeps the whole state, and the agent as the last one: by `break` where nothing else holds the run,
    at the end of a `with` block, by `close`, or by `stop` from inside the loop. `jaxdqn.resume` goes on from there.

    Ctrl-C and SIGTERM do the same in the main thread, unless the program handles these signals itself: within a batch
    the state is kept after it, between two batches at once; then `KeyboardInterrupt` or `SystemExit` is raised.

    Where several processes train together, one of them cannot leave alone: call `stop`, which all of them follow.
    """

    def __init__(self, steps: Generator[RunProgress, None, None], stop: Stop, *, alone: bool, listens: bool) -> None:
        """Wrap a run.

        Args:
            steps: Trains, batch by batch; closing it keeps what was learned.
            stop: Asked by `steps`.
            alone: Whether this process trains by itself.
            listens: Whether signals are to be heard here; else whoever gave `stop` hears them.
        """
        self._steps, self._stop, self._alone, self._listens = steps, stop, alone, listens
        self._listening = contextlib.ExitStack()
        self._leaving = False
        self._busy: list[bool] = []  # not empty while a batch is trained, or the run is being closed

    def __iter__(self) -> TrainingRun:
        """Itself."""
        return self

    def __next__(self) -> RunProgress:
        """Train for a batch."""
        if self._leaving:
            self.close()
            raise StopIteration
        if self._listens:
            self._listens = False
            self._listen()
        self._busy.append(True)
        try:
            return next(self._steps)
        except BaseException:
            self._listening.close()
            raise
        finally:
            self._busy.clear()

    def stop(self) -> None:
        """Let the run end here: the loop gets no further batch, and what was learned is kept.

        Of several processes any one may call it; all of them then end after their next batch.
        """
        if self._alone:
            self._leaving = True
        else:
            self._stop.finish()

    def close(self) -> None:
        """Keep what was learned, unless that is done, and close environments and files."""
        asked = self._close()
        if asked:
            self._stop.check()

    def _close(self) -> int:
        """`close`, and the signal that has come meanwhile: it waits until all is kept."""
        self._leaving = True
        if self._busy:  # `close` in a signal's handler, or in another thread
            self._steps.close()
            return 0
        before = self._stop.asked
        self._busy.append(True)
        try:
            self._steps.close()
        finally:
            self._listening.close()
            self._busy.clear()
        return 0 if self._stop.asked == before else self._stop.asked

    def __enter__(self) -> TrainingRun:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """`close`."""
        self.close()

    def __del__(self) -> None:
        """`close`, for a loop that was left by `break`."""
        asked = self._close()
        if asked > FINISH:  # nothing that is raised here would be seen
            threading.Timer(0.05, os.kill, [os.getpid(), asked]).start()

    def _listen(self) -> None:
        """Hear signals from now on, each that nobody handles: the shell has those of background jobs ignore Ctrl-C."""
        numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
        heard = [number for number in numbers if is_free(number)]
        alarm = getattr(signal, "SIGALRM", None)  # by which one that waits for too long is stopped
        taken = alarm is not None and not is_free(alarm)
        if not heard or taken or threading.current_thread() is not threading.main_thread():
            return
        this, busy, alone = weakref.ref(self), self._busy, self._alone  # to hold the run would keep `break` from it

        def leave() -> bool:
            run = this()
            if busy or not alone:
                return False
            if run is not None:
                run.close()
            return True

        self._listening.enter_context(self._stop.listening(between=leave, heard=heard))
