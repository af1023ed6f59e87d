"""What the experiments' command lines share."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def split_flags(args: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """An experiment's own words, and the flags of `jaxdqn train` behind `--`.

    Args:
        args: Words; None takes the process's own.
    """
    words = list(sys.argv[1:] if args is None else args)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]
