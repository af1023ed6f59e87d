"""A replay ring that is filled and saved repeatedly, in files of eight slots."""

import dataclasses

import jax
import numpy as np
from small_runs import equal
from stopped_runs import VECTORS

import jaxdqn
from jaxdqn.checkpoints.run_manifest import RunRecord
from jaxdqn.checkpoints.run_state import States
from jaxdqn.storage import checksums

RECORD = RunRecord(config={}, versions={}, index={}, log=None, evaluation_due=False)
AGENT = jaxdqn.make_agent(
    dataclasses.replace(VECTORS, capacity=256, total_frames=10_000), num_actions=2, obs_shape=(4,), obs_dtype=np.float32
)
NUM_ENVS = VECTORS.num_envs


EIGHT_SLOTS = 8 * NUM_ENVS * (16 + 14)
"""Bytes of a file with eight slots, uncompressed."""


class Ring:
    """A replay ring that is filled and saved repeatedly."""

    def __init__(self, folder, keep=2):
        self.folder, self.keep = folder / "states", keep
        self.states = States(self.folder, keep=keep, with_replay=True)
        self.state = AGENT.init(jax.random.key(0))
        self.frames = 0
        self.rng = np.random.default_rng(0)

    def save_after(self, slots):
        """Add rows to so many slots, save a state and return its folder."""
        shape = (slots, NUM_ENVS)
        rows = jaxdqn.Rows(
            obs=self.rng.normal(size=(*shape, 4)).astype(np.float32),
            action=self.rng.integers(0, 2, shape, np.int32),
            reward=self.rng.normal(size=shape).astype(np.float32),
            terminated=np.zeros(shape, bool),
            last=np.zeros(shape, bool),
            episode_step=np.ones(shape, np.int32),
        )
        if slots:
            self.state = AGENT.observe(self.state, rows)
        self.frames += slots * NUM_ENVS
        return self.states.save(self.frames, self.state, RECORD)

    def check(self):
        """Check that all saved states are undamaged and share no file, and that the newest equals the ring."""
        kept = self.states.all()
        assert len(kept) <= self.keep
        for folder in kept:
            checksums.check_folder(folder)
        numbers = [number for folder in kept for number in inodes(folder).values()]
        assert len(set(numbers)) == len(numbers)
        states = States(self.folder, keep=self.keep, with_replay=True)
        loaded, _ = states.load(states.newest(), AGENT, AGENT.init(jax.random.key(1)))
        assert equal(loaded, self.state)


def inodes(folder):
    """Return the inode of each replay file in a state's folder."""
    return {path.name: path.stat().st_ino for path in sorted((folder / "replay").iterdir())}


def flip_one_bit(data):
    """Return a copy of some bytes with one bit in the middle flipped."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
