"""SIGTERM and Ctrl-C during a run: it stops where its state can be kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

PATIENCE = 20.0
"""Seconds after which a run that has not come to such a place is stopped where it is: clusters kill after 30."""

_SIGHUP = getattr(signal, "SIGHUP", None)  # not on Windows

FINISH = 1
"""What `Stop.finish` asks for, among the numbers of signals: any of these comes before it."""


class Stop:
    """Whether a run is to stop, and by which signal."""

    def __init__(self) -> None:
        """Nothing has been asked for."""
        self._signal: int | None = None
        self._agreed: int | None = None
        self._with_others = False
        self.left = False
        """Whether the run has been left by `leave`, where the others leave it as well."""
        self._keeps = False
        self._between: Callable[[], bool] | None = None
        self.patience = PATIENCE
        """Seconds to come to a place where the state can be kept."""

    def finish(self) -> None:
        """Ask, without a signal, that the run ends after its next batch; nothing is raised then."""
        self._signal = self._signal or FINISH

    @property
    def asked(self) -> int:
        """The signal that this process was sent; 0 for none."""
        return self._signal or 0

    def agree(self, number: int) -> None:
        """Take what was asked of any of several processes as what is asked of all; 0 for nothing.

        From then on this process stops by what was agreed, and not as soon as it is sent a signal.
        """
        self._with_others, self._agreed = True, number or self._agreed
        if number:
            _set_alarm(0.0)  # the state is about to be kept, by all

    @property
    def requested(self) -> bool:
        """Whether the run is to stop as soon as its state can be kept."""
        return (self._agreed if self._with_others else self._signal) is not None

    def allow_graceful(self, whether: bool) -> None:
        """Say whether there is a state worth keeping from now on, and time to do it; else a signal stops at once."""
        self._keeps = whether
        if not whether:
            self.cancel_deadline()

    def cancel_deadline(self) -> None:
        """Let the alarm be: the state is being kept."""
        if self._signal is not None:
            _set_alarm(0.0)

    def leave(self) -> None:
        """`check`, at a place that all processes come to."""
        self.left = self.requested
        self.check()

    def check(self) -> None:
        """Raise what the signal stands for, if there was one.

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
        self, between: Callable[[], bool] | None = None, heard: Sequence[int] | None = None
    ) -> Iterator[Stop]:
        """SIGTERM and Ctrl-C within are requests; a second one, or no answer for `patience` seconds, stops at once.

        A terminal that is closed (SIGHUP) asks as SIGTERM does. What is heard is a request to all runs of this process
        that listen. Begin it in the main thread; in another one nothing is changed, as signals are not heard there. It
        may end in any thread.

        Args:
            between: Called at a signal: where no batch is being trained it keeps the state and gives True, and the
                signal stops at once.
            heard: Which of the three are listened to; None: all, but for SIGHUP where `nohup` has it ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        self._between = between
        if heard is None:
            nohup = _SIGHUP is None or signal.getsignal(_SIGHUP) == signal.SIG_IGN
            heard = [signal.SIGTERM, signal.SIGINT, *([] if nohup or _SIGHUP is None else [_SIGHUP])]
        _install(heard)
        _listening.append(self)
        try:
            yield self
        finally:
            self._between = None
            _listening.remove(self)
            if not _listening:
                _set_alarm(0.0)
                _restore()

    def _request(self, number: int) -> bool:
        """Take a signal as a request; whether this run is done, so that the signal may be raised."""
        again = self._signal not in (None, FINISH)
        if number == _SIGHUP:
            if again:  # the kernel and the shell both send it
                return False
            number = signal.SIGTERM
        self._signal = number
        if not again and self._between is not None and self._between():
            return True
        if again or not (self._keeps or self._with_others):
            return True
        if self._agreed is None:
            _set_alarm(self.patience)
        return False


_listening: list[Stop] = []
"""Runs of this process that listen."""

_before: dict[int, Any] = {}
"""Handlers that ours stand in place of."""


def is_free(number: int) -> bool:
    """Whether nobody but runs of this process handles a signal."""
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    return signal.getsignal(number) in (default, _hear, _give_up)


def _install(numbers: Sequence[int]) -> None:
    alarm = getattr(signal, "SIGALRM", None)
    for number in numbers:
        if number not in _before:
            _before[number] = signal.signal(number, _hear)
    if alarm is not None and alarm not in _before:
        _before[alarm] = signal.signal(alarm, _give_up)


def _restore() -> None:
    """Put the handlers back that were there; in another thread than the main one, the next signal does so."""
    if threading.current_thread() is threading.main_thread():
        while _before:
            signal.signal(*_before.popitem())


def _hear(number: int, frame: FrameType | None) -> None:
    stops = list(_listening)
    if not stops:  # the last run has ended in another thread
        _restore()
        signal.raise_signal(number)
        return
    done = [stop._request(number) for stop in stops]
    if all(done):  # else the one in whose batch this is raises it, when that is kept
        stops[-1].check()


def _give_up(number: int, frame: FrameType | None) -> None:
    for stop in list(_listening):
        stop.check()


def _set_alarm(seconds: float) -> None:
    """Where the system has one; 0 takes it back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextlib.contextmanager
def defer_ctrl_c() -> Iterator[None]:
    """A Ctrl-C within takes effect afterwards; processes and threads that are started within are deaf to it for good.

    For imports of extensions, some of which crash or hang where a KeyboardInterrupt is raised in the middle, and for
    helpers, since a terminal sends SIGINT to every process of a group. Where signals cannot be blocked, as on Windows,
    nothing is held.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
