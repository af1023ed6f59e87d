"""Command-line helpers of the experiments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jaxdqn.cli.train_flags import parse_config
from jaxdqn.config import Config

_REPLACED = {"--seed": "--seeds", "--output": "--output"}
"""Flags of `jaxdqn train` that an experiment over seeds sets, and its own argument for each."""


def split_flags(args: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return an experiment's own arguments, and the flags of `jaxdqn train` after `--`.

    Args:
        args: All arguments; None takes those of the process.
    """
    words = list(sys.argv[1:] if args is None else args)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def config_of(flags: Sequence[str], base: Config) -> Config:
    """Return the config of some flags of `jaxdqn train`.

    Args:
        flags: The words after `--`.
        base: The config that they change.

    Raises:
        ValueError: If a flag is unknown or invalid, or one that the experiment sets.
    """
    for word in flags:
        name = word.split("=")[0]
        if name in _REPLACED:
            raise ValueError(f"{name} is set by the experiment: use {_REPLACED[name]}, before --")
    return parse_config(flags, base)


def positive(word: str) -> int:
    """Parse a whole number above 0."""
    return _at_least(1, word)


def count(word: str) -> int:
    """Parse a whole number, 0 or above."""
    return _at_least(0, word)


def _at_least(least: int, word: str) -> int:
    if int(word) < least:
        raise argparse.ArgumentTypeError(f"{word} must be at least {least}")
    return int(word)
