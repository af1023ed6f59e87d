"""A run as the command line shows it, from its first batch to what ended it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdqn.config import Config
from jaxdqn.launch import Launch
from jaxdqn.run.interrupts import ctrl_c_held
from jaxdqn.run.witness import how_to_go_on

if TYPE_CHECKING:
    from jaxdqn.run.course import RunProgress
    from jaxdqn.run.stop import Stop
    from jaxdqn.run.witness import Witness


class Stopped(Exception):  # noqa: N818, it is said and not caught
    """What ended before its end, in one line that is no fault of what was typed."""


def show_run(
    config: Config,
    begin: Callable[..., Generator[RunProgress, None, None]],
    launch: Launch,
    report: Callable[[BaseException], int],
    folder: Path | None = None,
) -> None:
    """Let a run go on to its end, and show it.

    Args:
        config: The run.
        begin: Gives its steps, from what `train` takes.
        launch: How this process finds the others that train with it.
        report: Says an error, and gives the exit code.
        folder: The run's own, where that is known beforehand.

    Raises:
        Stopped: Where a fault ends it that is not one of the flags.
    """
    from jaxdqn.run.resources import keep_programs
    from jaxdqn.run.stop import Stop

    stop = Stop()
    if not launch.distributed:
        keep_programs()
        _follow(config, begin, stop, folder)
        return
    with ctrl_c_held():
        from jaxdqn.run.joining import joined

    # Programs are not kept: where one process finds a program and another has to compile it, they may wait in vain.
    with joined(launch, stop, report) as (peers, witness):
        if folder is not None:
            witness.watch(folder)
        _follow(config, lambda **how: begin(peers=peers, **how), stop, folder, witness, quiet=not peers.first)


def _follow(
    config: Config,
    begin: Callable[..., Generator[RunProgress, None, None]],
    stop: Stop,
    folder: Path | None,
    witness: Witness | None = None,
    *,
    quiet: bool = False,
) -> None:
    from jaxdqn.envs.stepping import fault_of
    from jaxdqn.envs.workers import WorkerError
    from jaxdqn.run.display import Display
    from jaxdqn.run.peers import LostPeerError, PeerError

    begun = False
    with Display(config, quiet=quiet) as display, stop.listening(), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: display.say(f"warning: {message}")
        try:
            with contextlib.closing(begin(stop=stop, say=display.say, show=display.say)) as steps:
                for step in steps:
                    if witness is not None and not begun:
                        witness.watch(step.folder)
                    folder, begun = step.folder, True
                    display.show(step)
        except Exception as error:
            known = isinstance(error, ValueError | OSError | ArithmeticError | WorkerError | PeerError | LostPeerError)
            fault = fault_of(error)
            if fault is None and (not known or (not begun and isinstance(error, ValueError | OSError))):
                raise
            # Not the fault of what was typed, and nothing of ours to be looked at: the exit code is 1.
            where = f"; {how_to_go_on(folder)}" if folder is not None else ""
            raise Stopped(f"training stopped: {fault or in_one_line(error)}{where}") from error
        except (KeyboardInterrupt, SystemExit):
            display.say(f"stopped; {how_to_go_on(folder)}" if folder is not None else "stopped before the first batch")
            raise
    if folder is not None and not quiet:
        print(f"kept in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
        print(f"next: jaxdqn evaluate {folder} --episodes 100")


def in_one_line(error: BaseException) -> str:
    """What an error says, without its line breaks."""
    return " ".join(str(error).split())
