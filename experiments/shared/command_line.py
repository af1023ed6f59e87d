"""What the experiments' command lines share."""

from __future__ import annotations

import argparse
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


def positive(word: str) -> int:
    """A whole number above 0."""
    return _at_least(1, word)


def count(word: str) -> int:
    """A whole number, 0 or above."""
    return _at_least(0, word)


def _at_least(least: int, word: str) -> int:
    if int(word) < least:
        raise argparse.ArgumentTypeError(f"{word} must be at least {least}")
    return int(word)
