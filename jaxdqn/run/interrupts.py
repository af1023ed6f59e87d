"""Ctrl-C where it must wait."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def ctrl_c_held() -> Iterator[None]:
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
