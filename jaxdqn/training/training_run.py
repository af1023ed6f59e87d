"""The iterator that `train` and `resume` return: leave it at any batch, and the state of the run is saved."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Generator, Iterator
from types import TracebackType

from jaxdqn.signals import WITHOUT_SIGNAL, has_no_other_handler
from jaxdqn.training.context import RunControl
from jaxdqn.training.trainer import RunProgress


class TrainingRun(Iterator[RunProgress]):
    """An iterator that trains: each step trains for a batch and returns progress. Nothing happens before the first.

        for step in jaxdqn.train(config):            with jaxdqn.train(config) as run:
            if solved(step):                             for step in run:
                break                                        ...

    Leaving the loop saves the whole state, and the agent as the last agent: by `break` if there is no other reference
    to the run, at the end of a `with` block, by `close`, or by `stop` inside the loop. `jaxdqn.resume` continues there.

    Ctrl-C and SIGTERM do the same in the main thread, unless the program handles these signals itself. Within a batch,
    the state is saved after the batch; between two batches, at once. Then `KeyboardInterrupt` or `SystemExit` is
    raised.

    If several processes train together, one of them cannot leave alone: call `stop`, which stops all of them.
    """

    def __init__(self, steps: Generator[RunProgress, None, None], control: RunControl) -> None:
        """Wrap a generator that trains.

        Args:
            steps: Trains, batch by batch; closing it saves the state.
            control: The run's control, whose `stop` the steps check.
        """
        self._steps, self._stop, self._handle_signals = steps, control.stop, control.handle_signals
        self._single_process = control.group.count == 1
        self._signal_handlers = contextlib.ExitStack()
        self._stopped = False
        self._busy: list[bool] = []  # not empty while a batch is trained or the run is closed; a closure shares it

    def __iter__(self) -> TrainingRun:
        """Return the run itself."""
        return self

    def __next__(self) -> RunProgress:
        """Train for a batch."""
        if self._stopped:
            self.close()
            raise StopIteration
        if self._handle_signals:
            self._handle_signals = False
            self._install_signal_handlers()
        self._busy.append(True)
        try:
            return next(self._steps)
        except BaseException:
            self._signal_handlers.close()
            raise
        finally:
            self._busy.clear()

    def stop(self) -> None:
        """End the run here: the loop gets no further batch, and the state is saved.

        With several processes, any of them may call it; all of them end after their next batch.
        """
        if self._single_process:
            self._stopped = True
        else:
            self._stop.request()

    def close(self) -> None:
        """Save the state, unless it is saved already, and close environments and files."""
        if self._close():
            self._stop.raise_if_signalled()

    def _close(self) -> int:
        """Close the run, and return the signal received meanwhile, which waits until all is saved; 0 for none."""
        self._stopped = True
        if self._busy:  # `close` in a signal's handler, or in another thread
            self._steps.close()
            return 0
        before = self._stop.signal_number
        self._busy.append(True)
        try:
            self._steps.close()
        finally:
            self._signal_handlers.close()
            self._busy.clear()
        return 0 if self._stop.signal_number == before else self._stop.signal_number

    def __enter__(self) -> TrainingRun:
        """Return the run itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the run."""
        self.close()

    def __del__(self) -> None:
        """Close the run, for a loop that was left by `break`."""
        number = self._close()
        if number > WITHOUT_SIGNAL:  # Python ignores what is raised in `__del__`, so the signal is sent again
            threading.Timer(0.05, os.kill, [os.getpid(), number]).start()

    def _install_signal_handlers(self) -> None:
        """Handle each signal that the program does not handle. The shell lets background jobs ignore Ctrl-C."""
        numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
        numbers = [number for number in numbers if has_no_other_handler(number)]
        alarm = getattr(signal, "SIGALRM", None)  # the timer of the grace period
        taken = alarm is not None and not has_no_other_handler(alarm)
        if not numbers or taken or threading.current_thread() is not threading.main_thread():
            return
        # A strong reference to the run would prevent `break` from closing it.
        this, busy, single_process = weakref.ref(self), self._busy, self._single_process

        def save_between_batches() -> bool:
            run = this()
            if busy or not single_process:
                return False
            if run is not None:
                run.close()
            return True

        self._signal_handlers.enter_context(self._stop.listening(save_between_batches, numbers))
