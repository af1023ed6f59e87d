"""Runs a training, shows its progress, and reports what ended it."""

from __future__ import annotations

import contextlib
import errno
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdqn.config import Config
from jaxdqn.distributed.options import DistributedOptions
from jaxdqn.resume_command import env_flags, quote_path, relative_path, resume_hint
from jaxdqn.signals import defer_ctrl_c

if TYPE_CHECKING:
    from jaxdqn.distributed.process_group import ProcessGroup
    from jaxdqn.distributed.watchdog import Watchdog
    from jaxdqn.signals import Stop
    from jaxdqn.training.context import RunControl
    from jaxdqn.training.training_run import TrainingRun


# Errors of the machine: other input would not avoid them.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN}


class Stopped(Exception):  # noqa: N818, it is reported and never handled
    """A command stopped early, for a reason other than bad input; the message is one line."""


def show_run(
    config: Config,
    start: Callable[[RunControl], TrainingRun],
    options: DistributedOptions,
    folder: Path | None = None,
) -> None:
    """Run a training to its end and show its progress.

    Args:
        config: The run's config.
        start: Starts the run.
        options: How this process finds the others that train with it.
        folder: The run's folder, if it is known beforehand.

    Raises:
        Stopped: If an error that is not caused by bad input ends the run.
    """
    from jaxdqn.distributed.devices import enable_compilation_cache, find_devices
    from jaxdqn.distributed.process_group import ProcessGroup
    from jaxdqn.signals import Stop

    stop = Stop()
    if not options.distributed:
        find_devices()
        enable_compilation_cache()
        _run_and_show(config, start, stop, folder, ProcessGroup(stop))
        return
    with defer_ctrl_c():
        from jaxdqn.distributed.initialize import process_group

    # No compilation cache: if one process finds a program and another has to compile it, they may wait forever.
    with process_group(options, stop, report) as (group, watchdog):
        if folder is not None:
            watchdog.watch(folder)
        _run_and_show(config, start, stop, folder, group, watchdog)


def _run_and_show(
    config: Config,
    start: Callable[[RunControl], TrainingRun],
    stop: Stop,
    folder: Path | None,
    group: ProcessGroup,
    watchdog: Watchdog | None = None,
) -> None:
    from jaxdqn.cli.console import Display
    from jaxdqn.distributed.process_group import LostProcessError, ProcessError
    from jaxdqn.envs.vector.stepper import fault_of
    from jaxdqn.envs.vector.workers import WorkerError
    from jaxdqn.training.context import RunControl

    begun, quiet = False, not group.is_first
    with Display(config, quiet=quiet) as display, stop.listening(), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: display.say(f"warning: {plain_line(str(message))}")
        try:
            with contextlib.closing(start(RunControl(stop, say=display.say, show=display.say, group=group))) as steps:
                for step in steps:
                    if watchdog is not None and not begun:
                        watchdog.watch(step.folder)
                    folder, begun = step.folder, True
                    display.show(step)
        except Exception as error:
            known = isinstance(
                error, ValueError | OSError | ArithmeticError | WorkerError | ProcessError | LostProcessError
            )
            fault = fault_of(error) or machine_fault(error)
            if fault is None and (not known or (not begun and isinstance(error, ValueError | OSError))):
                raise
            # Neither bad input nor a bug of this package: no traceback, and exit code 1.
            where = f"; {resume_hint(folder)}" if folder is not None else ""
            raise Stopped(f"training stopped: {fault or in_one_line(error)}{where}") from error
        except (KeyboardInterrupt, SystemExit):
            display.say(f"stopped; {resume_hint(folder)}" if folder is not None else "stopped before the first batch")
            raise
    if folder is not None and not quiet:
        saved = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        print(f"saved in {relative_path(folder)}: {', '.join(saved)}")
        print(f"next: jaxdqn evaluate {quote_path(folder)}{env_flags(folder, played=True)} --episodes 100")


def report(error: BaseException) -> int:
    """Print one line about the error that ended a command, and return the exit code; raise the error if it is a bug."""
    if isinstance(error, SystemExit):
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        print("jaxdqn: interrupted; all files are complete", file=sys.stderr)
        return 130
    fault = machine_fault(error)
    if fault is None and not isinstance(error, ValueError | OSError | Stopped):
        raise error
    print(f"jaxdqn: {fault or in_one_line(error)}", file=sys.stderr)
    return 2 if fault is None and not isinstance(error, Stopped) else 1


def machine_fault(error: BaseException) -> str | None:
    """Return one line for an error that is caused by the machine and not by bad input; None for any other error."""
    if isinstance(error, MemoryError):
        return f"out of memory: {in_one_line(error)}".removesuffix(": ")
    if isinstance(error, OSError) and error.errno in _MACHINE:
        return in_one_line(error)
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] != "jaxdqn":
        return f"module {error.name!r} is not installed: `python3 -m pip check` names the packages that are missing"
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(error, jax.errors.JaxRuntimeError):
        return f"JAX: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    return None


def in_one_line(error: BaseException) -> str:
    """Return an error's message as one line."""
    return plain_line(str(error))


def plain_line(text: str) -> str:
    """Return a text as one line, without terminal colour codes."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
