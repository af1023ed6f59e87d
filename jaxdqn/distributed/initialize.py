"""Join the processes of a run with `jax.distributed`, and leave it so that no process waits forever for another."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator

import jax

from jaxdqn.distributed.bind_address import choose_bind_address, resolve_cluster
from jaxdqn.distributed.devices import find_devices
from jaxdqn.distributed.options import DistributedOptions
from jaxdqn.distributed.process_group import LostProcessError, ProcessGroup
from jaxdqn.distributed.watchdog import Watchdog
from jaxdqn.signals import Stop

HEARTBEAT_SECONDS = 15
"""If a process sends no heartbeat for this long, JAX ends the others."""

SHUTDOWN_SECONDS = 60
"""How long a process that has finished waits for the others to finish."""


def initialize(options: DistributedOptions) -> None:
    """Join this process to the others. If they do not connect in time, print one line and exit with code 2.

    Call it before any other use of JAX.

    Args:
        options: How to find the others; unset options are taken from the cluster, if JAX knows it.

    Raises:
        ValueError: If the options are incomplete and there is no cluster, this process cannot be the coordinator at the
            given address, or the processes have different numbers of devices.
    """
    # JAX's own handler would swallow SIGTERM until jaxdqn installs its handler.
    jax.config.update("jax_enable_preemption_service", False)
    # At its own timeout, JAX would crash this process.
    timeout = threading.Timer(options.connect_timeout, _exit_on_timeout, [options])
    timeout.daemon = True
    timeout.start()
    try:
        with _exit_on_ctrl_c():
            options = resolve_cluster(options)
            address = None
            if options.process_id == 0:
                address, note = choose_bind_address(options)
                if note is not None:
                    print(f"jaxdqn: --distributed: {note}", file=sys.stderr, flush=True)
            jax.distributed.initialize(
                coordinator_address=options.coordinator,
                num_processes=options.num_processes,
                process_id=options.process_id,
                coordinator_bind_address=address,
                initialization_timeout=options.connect_timeout + 60,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=SHUTDOWN_SECONDS,
            )
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        unset = None in (options.coordinator, options.num_processes, options.process_id)
        if unset and "defined" in reason:  # JAX: an option must be defined, by the user or by a known cluster
            reason = "no cluster found: give --coordinator HOST:PORT --num-processes N --process-id I"
        raise ValueError(f"--distributed: {reason}") from error
    finally:
        timeout.cancel()
    find_devices()
    counts = Counter(device.process_index for device in jax.devices())
    for index, count in sorted(counts.items()):
        if count != counts[0]:
            raise ValueError(
                f"--distributed: process {index} has {count} devices and process 0 has {counts[0]}: "
                "give all processes the same number"
            )


@contextlib.contextmanager
def _exit_on_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the process within the block, in which C++ waits and Python cannot handle signals."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _exit_on_timeout(options: DistributedOptions) -> None:
    where = options.coordinator or "the cluster's coordinator"
    if options.process_id == 0:
        problem = f"not all {options.num_processes or ''} processes connected to {where}".replace("  ", " ")
        fix = "start the others with the same flags and a --process-id of their own"
    else:
        problem = f"{where} did not answer, or not all processes connected to it,"
        fix = "check that process 0 runs there, and that its port is open"
    print(f"jaxdqn: --distributed: {problem} within {options.connect_timeout} s: {fix}", file=sys.stderr, flush=True)
    os._exit(2)


@contextlib.contextmanager
def process_group(
    options: DistributedOptions, stop: Stop, report: Callable[[BaseException], int]
) -> Iterator[tuple[ProcessGroup, Watchdog]]:
    """Join the processes of a run, and yield the group and this process's watchdog.

    An error in the block that the other processes do not know of ends this process at once. It does not shut JAX down
    first, because the others would have to take part; they notice that this process is lost.

    Args:
        options: See `initialize`.
        stop: This process's stop request.
        report: Prints an error and returns the exit code.
    """
    initialize(options)
    with contextlib.ExitStack() as stack:
        group = watchdog = None
        try:
            group = ProcessGroup(stop)
            watchdog = stack.enter_context(Watchdog(f"process {group.index} of {group.count}"))
            yield group, watchdog
        except BaseException as error:
            if group is not None and group.is_known_to_all(error):
                raise
            try:
                code = report(error)
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            if watchdog is not None:
                watchdog.dismiss()
            if group is not None and isinstance(error.__cause__, LostProcessError) and group.count > 2:
                time.sleep(HEARTBEAT_SECONDS + 5)  # meanwhile JAX ends this process, and says which one was lost
            os._exit(code)
