"""The DQN family by name: each algorithm is a set of pieces, and each piece is a field of the config.

    config = with_algorithm(PRESETS["cartpole"], "rainbow")

An algorithm sets pieces and never the optimizer's numbers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxdqn.config import Config
from jaxdqn.config_checks import numbers_of_absent_pieces

PIECES = ("double", "munchausen", "distribution", "prioritized", "noisy")
"""Fields of a config that an algorithm sets."""

_PLAIN: dict[str, Any] = {
    "double": False,
    "munchausen": False,
    "distribution": "none",
    "prioritized": False,
    "noisy": False,
}

ALGORITHMS: dict[str, dict[str, Any]] = {
    "dqn": _PLAIN,
    "double": {**_PLAIN, "double": True},
    "c51": {**_PLAIN, "distribution": "c51"},
    "hl-gauss": {**_PLAIN, "distribution": "hl-gauss"},
    "qr": {**_PLAIN, "distribution": "qr"},
    "iqn": {**_PLAIN, "distribution": "iqn"},
    "munchausen": {**_PLAIN, "munchausen": True},
    "m-iqn": {**_PLAIN, "munchausen": True, "distribution": "iqn"},
    # With the config's n_steps and the dueling heads of every network these are Rainbow's six pieces.
    "rainbow": {"double": True, "munchausen": False, "distribution": "c51", "prioritized": True, "noisy": True},
}
"""The pieces of each algorithm, as its paper describes it; each lists every piece."""


def with_algorithm(config: Config, name: str) -> Config:
    """Return a config with the pieces of an algorithm.

    Raises:
        ValueError: If there is no such algorithm.
    """
    if name not in ALGORITHMS:
        raise ValueError(f"algorithm {name!r} must be one of {', '.join(ALGORITHMS)}")
    return with_pieces(config, ALGORITHMS[name])


def with_pieces(config: Config, pieces: dict[str, Any]) -> Config:
    """Return a config with some pieces; the numbers of pieces that are then off get their defaults."""
    fields = {**config.to_dict(), **pieces}
    defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **pieces, **{name: defaults[name] for name in numbers_of_absent_pieces(fields)})
