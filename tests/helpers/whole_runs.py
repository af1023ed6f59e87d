"""Short complete runs, and the tables that they write."""

import csv
import dataclasses

import jaxdqn
from jaxdqn.config import Config

VECTORS = Config(
    pixels=False,
    total_frames=500,  # rounded up to 512
    num_envs=4,
    batch_size=16,
    capacity=512,
    warmup_frames=128,
    updates_per_batch=2,
    evaluate_every=256,
    evaluation_episodes=4,
)


PIXELS = dataclasses.replace(
    VECTORS,
    pixels=True,
    random_shift=2,
    mirror=True,
    frame_size=44,
    normalisation_frames=40,
    total_frames=128,
    warmup_frames=64,
    evaluate_every=64,
)


MACHINE_SUFFIXES = ("_seconds", "_per_second")


def finish(config, folder, **options):
    """Train to the end and return the folder."""
    for step in jaxdqn.train(dataclasses.replace(config, output=str(folder)), **options):
        assert step.folder == folder
    return folder


def table(path):
    """Return the rows of a CSV file without the columns that depend on the machine."""
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.endswith(MACHINE_SUFFIXES)} for row in csv.DictReader(file)]
