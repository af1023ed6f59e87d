"""Entry point of the command line: report an error in one line and an exit code.

The exit code is 2 after bad input, 1 after any other error, 130 after Ctrl-C and 143 after SIGTERM.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from jaxdqn.standard_streams import finish_streams, guard_streams


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: with 0, 1 if an error stopped it, 2 on bad input, 130 on Ctrl-C.

    If the reader of the output closes the pipe, as in `jaxdqn --help | head -1`, the command still does all of its work
    and exits with the same code: no training is lost.
    """
    guard_streams()
    words, code = list(sys.argv[1:] if args is None else args), 0
    try:
        from jaxdqn.signals import defer_ctrl_c

        with defer_ctrl_c():  # not at the top of the module: Ctrl-C during the import would print a traceback
            from jaxdqn.cli.commands import run_command

        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _show_warning(str(message))
            run_command(words)
    except BaseException as error:
        from jaxdqn.cli.runner import report

        code = report(error)
    sys.exit(finish_streams(code))


def _show_warning(message: str) -> None:
    from jaxdqn.cli.runner import plain_line

    print(f"jaxdqn: warning: {plain_line(message)}", file=sys.stderr)
