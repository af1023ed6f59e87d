"""Derive the seeds of environments and episodes from the seed of a run."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """Separate streams of seeds within a run, so that no evaluated episode was ever trained on."""

    TRAINING = 0
    STATISTICS = 1
    SELECTION = 2
    EVALUATION = 3
    PICTURE = 4
    RESUMING = 5


def process_seed(seed: int, index: int) -> int:
    """Return the seed of process `index`; the first process has `seed` itself."""
    return seed if index == 0 else int(np.random.SeedSequence([seed, index]).generate_state(1)[0]) >> 1


def spawn_seeds(seed: int, count: int, purpose: Purpose = Purpose.TRAINING) -> list[int]:
    """Return seeds below 2**31 for `count` environments or episodes; the first ones are the same for any `count`.

    Raises:
        ValueError: If `seed` is below 0.
    """
    if seed < 0:
        raise ValueError(f"seed {seed} must be 0 or above")
    state = np.random.SeedSequence([seed, int(purpose)]).generate_state(count, np.uint32)
    return [int(value) >> 1 for value in state]
