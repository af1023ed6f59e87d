"""Rows of made-up episodes: each observation shows its environment and its time."""

import numpy as np

from jaxdqn.types import Rows


def history_of(columns, length, seed=0):
    """Make rows [length, N] of each environment's episodes (transitions, terminated); k transitions are k + 1 rows."""
    rng, shape = np.random.default_rng(seed), (length, len(columns))
    time, env = np.indices(shape)
    obs = np.stack([env + 1, time + 1], axis=-1)[:, :, None].astype(np.uint8)
    step, terminated, last = np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, bool)
    for n, episodes in enumerate(columns):
        rows = [(i, terminal and i == k - 1, i == k) for k, terminal in episodes for i in range(k + 1)]
        step[:, n], terminated[:, n], last[:, n] = zip(*rows[:length], strict=True)
    reward = np.where(last, 0, rng.integers(-9, 10, shape)).astype(np.float32)
    return Rows(obs, rng.integers(0, 5, shape, dtype=np.int32), reward, terminated, last, step)


def random_history(num_envs, length, longest, seed=0):
    rng = np.random.default_rng(seed)
    columns = [[(rng.integers(1, longest + 1), rng.random() < 0.5) for _ in range(length)] for _ in range(num_envs)]
    return history_of(columns, length, seed)
