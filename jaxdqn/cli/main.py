"""Entry point of the command line: report what ends a command in one line and an exit code.

The exit code is 2 after bad input, 1 after another fault, and 130 after Ctrl-C.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from jaxdqn.standard_streams import finish_streams, guard_streams


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Entry point: exits with 0, with 1 where a run was stopped by a fault, with 2 on bad input, with 130 on Ctrl-C.

    A reader of the output that goes away, as in `jaxdqn --help | head -1`, changes nothing: the command does the rest
    of its work, and exits as it would have. A training is not lost for it.
    """
    guard_streams()
    words, code = list(sys.argv[1:] if args is None else args), 0
    try:
        from jaxdqn.signals import defer_ctrl_c

        with defer_ctrl_c():  # and not at the top, where Ctrl-C during the import would be a traceback
            from jaxdqn.cli.commands import run_command

        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _show_warning(str(message))
            run_command(words)
    except BaseException as error:
        from jaxdqn.cli.runner import report

        code = report(error)
    sys.exit(finish_streams(code))


def _show_warning(message: str) -> None:
    from jaxdqn.cli.runner import plain

    print(f"jaxdqn: warning: {plain(message)}", file=sys.stderr)
