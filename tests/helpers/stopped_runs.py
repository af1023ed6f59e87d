"""Runs that are stopped and resumed, and the tables that they write."""

import dataclasses

from running import kill
from whole_runs import table as table

from jaxdqn.checkpoints.run_state import States
from jaxdqn.config import Config

VECTORS = Config(
    pixels=False,
    total_frames=320,
    num_envs=4,
    frames_per_batch=16,
    batch_size=16,
    updates_per_batch=2,
    capacity=128,
    warmup_frames=48,
    n_steps=3,
    evaluate_every=96,
    evaluation_episodes=4,
    checkpoint_every=64,
    log_every=48,
)


def config_in(folder, **changes):
    return dataclasses.replace(
        VECTORS, **{"output": str(folder), "evaluate_every": 0, "checkpoint_every": 32, **changes}
    )


def quiet(note):
    pass


def finish(steps, stop_after=None):
    """Iterate a run to its end, or kill it after `stop_after` frames; return the last step."""
    step = None
    for step in steps:
        if stop_after is not None and step.progress.frames >= stop_after:
            kill(steps)
            break
    return step


def newest(run, config):
    return States(run / "states", keep=config.keep, with_replay=True).newest()
