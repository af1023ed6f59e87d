"""Joining the processes of a run by JAX's own runtime, and leaving it so that none waits for another for ever."""

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

from jaxdqn.distributed.coordinator import choose_bind_address, resolve_cluster
from jaxdqn.distributed.devices import find_devices
from jaxdqn.distributed.options import DistributedOptions
from jaxdqn.distributed.processes import LostProcessError, ProcessGroup
from jaxdqn.distributed.watchdog import Watchdog
from jaxdqn.signals import Stop

HEARTBEAT_SECONDS = 15
"""After so long without a sign of a process, JAX ends those that are left."""

SHUTDOWN_SECONDS = 60
"""How long a process that has done its part waits for the others to have done theirs."""


def initialize(options: DistributedOptions) -> None:
    """Join this process to the others; where they do not come in time, one line is said and the process ends with 2.

    Before anything else is asked of JAX.

    Args:
        options: Where the others are; what it leaves open the cluster tells, where JAX knows it.

    Raises:
        ValueError: If neither tells, or this process cannot be the coordinator there.
    """
    # Its own handler would swallow SIGTERM until ours is there.
    jax.config.update("jax_enable_preemption_service", False)
    waiting = threading.Timer(options.connect_timeout, _give_up, [options])  # JAX would end this process with a crash
    waiting.daemon = True
    waiting.start()
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
        said = " ".join(str(error).split())
        if "defined" in said:  # by the user, or by a cluster that JAX knows
            said = "no cluster is found: give --coordinator HOST:PORT --num-processes N --process-id I"
        raise ValueError(f"--distributed: {said}") from error
    finally:
        waiting.cancel()
    find_devices()
    counts = Counter(device.process_index for device in jax.devices())
    for index, count in sorted(counts.items()):
        if count != counts[0]:
            raise ValueError(
                f"--distributed: process {index} has {count} devices and process 0 {counts[0]}: give all as many"
            )


@contextlib.contextmanager
def _exit_on_ctrl_c() -> Iterator[None]:
    """Ctrl-C ends the process within, where C++ waits and Python would hear of it only afterwards."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _give_up(options: DistributedOptions) -> None:
    where = options.coordinator or "the coordinator that the cluster names"
    if options.process_id == 0:
        said = f"not all {options.num_processes or ''} processes have come to {where}".replace("  ", " ")
        mend = "start the others with the same flags and a --process-id of their own"
    else:
        said = f"{where} has not answered, or not all processes have come there"
        mend = "see that process 0 runs there, and that its port is open"
    print(f"jaxdqn: --distributed: {said} within {options.connect_timeout} s: {mend}", file=sys.stderr, flush=True)
    os._exit(2)


@contextlib.contextmanager
def process_group(
    options: DistributedOptions, stop: Stop, report: Callable[[BaseException], int]
) -> Iterator[tuple[ProcessGroup, Watchdog]]:
    """The processes of a run, while it goes on.

    An error that the others do not know of ends this process within the block, at once and with no farewell, for which
    they would have to come: they learn by that that it is gone.

    Args:
        options: As `join` has it.
        stop: This process's.
        report: Says an error, and gives the exit code.
    """
    initialize(options)
    with contextlib.ExitStack() as held:
        group = watchdog = None
        try:
            group = ProcessGroup(stop)
            watchdog = held.enter_context(Watchdog(f"process {group.index} of {group.count}"))
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
                time.sleep(HEARTBEAT_SECONDS + 5)  # in which JAX ends this process, and says which was lost
            os._exit(code)
