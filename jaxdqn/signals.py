"""SIGTERM and Ctrl-C during a run: the run stops at a point where its state can be saved."""

# The states that the stop of a run goes through:
#
#     running --(signal, `request`)--> requested --(batch ends)--> saving --(state is on disk)--> raised
#        |                                 |                          |                             ^
#        |                                 +--(second signal, or the grace period is over)----------+
#        |                                                            +--(second signal)------------+
#        +--(signal, but no state to save: `allow_graceful(False)`, or saved at once between batches)-+
#
# running: no signal yet.
# requested: `requested` is true, and a timer of `grace_seconds` runs. With several processes, a signal to one of them
#     becomes a request to all when they next `agree`.
# saving: `cancel_deadline` has stopped the timer, and the state is written.
# raised: `raise_if_signalled` raises `KeyboardInterrupt` or `SystemExit`. After `request` nothing is raised: the run
#     ends as if its budget were spent. A second signal raises at once, and what is not on disk yet is lost.

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

GRACE_SECONDS = 20.0
"""Default of `Stop.grace_seconds`: clusters kill a process 30 seconds after SIGTERM."""

_SIGHUP = getattr(signal, "SIGHUP", None)  # not on Windows

WITHOUT_SIGNAL = 1
"""Stands for `Stop.request` in place of a signal's number: below SIGINT and SIGTERM (SIGHUP is mapped to SIGTERM)."""


class Stop:
    """The request to stop a run, and the signal that made it; the states are at the top of this module."""

    def __init__(self) -> None:
        """Begin in the state "running"."""
        self._signal: int | None = None
        self._agreed: int | None = None
        self._follows_agreement = False
        self.ended_on_all = False
        """Whether `end_run` has ended the run, on all of its processes."""
        self._graceful = False
        self._save_between_batches: Callable[[], bool] | None = None
        self.grace_seconds = GRACE_SECONDS
        """Seconds that a run has to reach a point where it can save its state; then it stops without saving."""

    def request(self) -> None:
        """Request, without a signal, that the run ends after its next batch; nothing is raised then."""
        self._signal = self._signal or WITHOUT_SIGNAL

    @property
    def signal_number(self) -> int:
        """Number of the signal that this process received, `WITHOUT_SIGNAL` after `request`, or 0."""
        return self._signal or 0

    def agree(self, number: int) -> None:
        """Take over the request that any of several processes has received; 0 if none has.

        From then on this process stops when all processes agree, and not as soon as it receives a signal.
        """
        self._follows_agreement, self._agreed = True, number or self._agreed
        if number:
            _set_timer(0.0)  # all processes are about to save the state

    @property
    def requested(self) -> bool:
        """Whether the run must stop as soon as its state can be saved."""
        return (self._agreed if self._follows_agreement else self._signal) is not None

    def allow_graceful(self, allowed: bool) -> None:
        """Set whether a signal waits until the state is saved. Otherwise it stops the run at once."""
        self._graceful = allowed
        if not allowed:
            self.cancel_deadline()

    def cancel_deadline(self) -> None:
        """Stop the timer of the grace period, because the state is being saved."""
        if self._signal is not None:
            _set_timer(0.0)

    def end_run(self) -> None:
        """Call `raise_if_signalled` at a point that all processes reach."""
        self.ended_on_all = self.requested
        self.raise_if_signalled()

    def raise_if_signalled(self) -> None:
        """Raise the exception that the signal stands for, if there was a signal.

        Raises:
            KeyboardInterrupt: After Ctrl-C.
            SystemExit: After SIGTERM, with 143.
        """
        number = max(self._signal or 0, self._agreed or 0)
        if number == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        if number == signal.SIGINT:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def listening(
        self, save_between_batches: Callable[[], bool] | None = None, numbers: Sequence[int] | None = None
    ) -> Iterator[Stop]:
        """Handle signals within the block: the first is a request to stop, a second one stops the run at once.

        The run also stops at once if it has not saved its state after `grace_seconds`. SIGHUP, which a terminal that
        closes sends, counts as SIGTERM. A signal is a request to all runs of this process that listen. Enter the block
        in the main thread; Python delivers no signals to other threads, so there the block changes nothing. The block
        may be left in any thread.

        Args:
            save_between_batches: Called at a signal. If no batch is being trained, it saves the state and returns True,
                and the signal stops the run at once.
            numbers: Signals to handle. None: SIGTERM, SIGINT and SIGHUP, without SIGHUP if `nohup` has it ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        self._save_between_batches = save_between_batches
        if numbers is None:
            nohup = _SIGHUP is None or signal.getsignal(_SIGHUP) == signal.SIG_IGN
            numbers = [signal.SIGTERM, signal.SIGINT, *([] if nohup or _SIGHUP is None else [_SIGHUP])]
        _install_handlers(numbers)
        _listening.append(self)
        try:
            yield self
        finally:
            self._save_between_batches = None
            _listening.remove(self)
            if not _listening:
                _set_timer(0.0)
                _restore_handlers()

    def _receive(self, number: int) -> bool:
        """Record a signal as a request; return whether the exception may be raised at once."""
        again = self._signal not in (None, WITHOUT_SIGNAL)
        if number == _SIGHUP:
            if again:  # the kernel and the shell both send it
                return False
            number = signal.SIGTERM
        self._signal = number
        if not again and self._save_between_batches is not None and self._save_between_batches():
            return True
        if again or not (self._graceful or self._follows_agreement):
            return True
        if self._agreed is None:
            _set_timer(self.grace_seconds)
        return False


_listening: list[Stop] = []
"""The runs of this process that listen."""

_previous_handlers: dict[int, Any] = {}
"""The handlers that this module has replaced, by signal."""


def has_no_other_handler(number: int) -> bool:
    """Return whether a signal has its default handler or one of this module."""
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    return signal.getsignal(number) in (default, _on_signal, _on_grace_period_over)


def _install_handlers(numbers: Sequence[int]) -> None:
    alarm = getattr(signal, "SIGALRM", None)
    for number in numbers:
        if number not in _previous_handlers:
            _previous_handlers[number] = signal.signal(number, _on_signal)
    if alarm is not None and alarm not in _previous_handlers:
        _previous_handlers[alarm] = signal.signal(alarm, _on_grace_period_over)


def _restore_handlers() -> None:
    """Restore the previous handlers. Outside of the main thread that is not possible: the next signal does it."""
    if threading.current_thread() is threading.main_thread():
        while _previous_handlers:
            signal.signal(*_previous_handlers.popitem())


def _on_signal(number: int, frame: FrameType | None) -> None:
    stops = list(_listening)
    if not stops:  # the last run ended in another thread
        _restore_handlers()
        signal.raise_signal(number)
        return
    may_raise = [stop._receive(number) for stop in stops]
    if all(may_raise):  # otherwise a run that is within a batch raises it after it has saved its state
        stops[-1].raise_if_signalled()


def _on_grace_period_over(number: int, frame: FrameType | None) -> None:
    for stop in list(_listening):
        stop.raise_if_signalled()


def _set_timer(seconds: float) -> None:
    """Start the timer of the grace period, if the system has one; 0 stops it."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextlib.contextmanager
def defer_ctrl_c() -> Iterator[None]:
    """Delay Ctrl-C until the block ends. Processes and threads that are started within the block never receive it.

    Use it for imports of extensions, some of which crash or hang if a KeyboardInterrupt is raised in the middle, and
    for helper processes, because a terminal sends SIGINT to every process of a group. If signals cannot be blocked, as
    on Windows, nothing is delayed.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
