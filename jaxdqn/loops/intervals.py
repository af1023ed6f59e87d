"""When a batch is followed by an evaluation, a checkpoint, or a row of the logs."""

from __future__ import annotations

from jaxdqn.config import Config


def evaluates_at(config: Config, frames: int) -> bool:
    """Return whether an evaluation follows the batch that ends at `frames`."""
    return frames >= config.run_frames or passed(config.evaluate_every, frames, config.frames_per_batch)


def checkpoints_at(config: Config, frames: int) -> bool:
    """Return whether a checkpoint of the state follows the batch that ends at `frames`."""
    return frames >= config.run_frames or passed(config.checkpoint_every, frames, config.frames_per_batch)


def passed(every: int, frames: int, new_frames: int) -> bool:
    """Return whether one of the newest frames is a multiple of `every`; never if `every` is 0."""
    return every > 0 and frames // every > (frames - new_frames) // every
