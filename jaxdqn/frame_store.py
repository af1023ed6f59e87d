"""Replay whose frames are not on the device: they lie in the host's memory or in a file.

The ring on the device is the same, but for one thing: in place of an observation it holds the number of its place in
the store. What is drawn, stacked and cut into windows is drawn, stacked and cut by the same functions with the same
keys, as numbers, and a thread fetches the frames of the next updates while the device does those of the present.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Int, Key, Shaped

from jaxdqn.agent import Agent, AgentState
from jaxdqn.learner import METRICS, Metrics, copy
from jaxdqn.preprocessing import join_frames
from jaxdqn.replay import ReplayState, check_fits
from jaxdqn.types import Batch, Rows

PIECES = 4
"""Pieces into which the updates after a batch are cut, at most. Only the first has to be waited for."""

_BLOCK = 2**24


class FrameStore:
    """Observations of a ring of `capacity // num_envs` slots, in an array or in a file."""

    def __init__(
        self,
        *,
        capacity: int,
        num_envs: int,
        obs_shape: tuple[int, ...],
        obs_dtype: DTypeLike,
        path: Path | None = None,
    ) -> None:
        """Take all the memory, or all the blocks of the file where its system can reserve them, before it is needed.

        Args:
            capacity: Rows over all environments; rounded down to a multiple of `num_envs`.
            num_envs: Environments that step in lockstep.
            obs_shape: Shape of one observation (one frame).
            obs_dtype: Its dtype.
            path: File of a NumPy memory map; None keeps frames in memory. The file loses its name as soon as it is
                mapped, where the system allows that, so that it is gone with the process, however that ends.

        Raises:
            ValueError: If the memory or the file cannot be had; nothing is left behind then.
        """
        self._num_envs = num_envs
        self._slots = capacity // num_envs
        self._path = path
        shape = (self._slots * num_envs, *obs_shape)
        self._frames = _reserve(path, shape, np.dtype(obs_dtype))
        self._nameless = path is None or not path.exists()
        self._thread = ThreadPoolExecutor(1, "replay")

    def write(self, cursor: int, obs: Shaped[Any, "T N *obs"]) -> Int[np.ndarray, "T N"]:
        """Put rows at the ring's cursor; returns their places."""
        slots = (cursor + np.arange(len(obs))) % self._slots
        places = slots[:, None] * self._num_envs + np.arange(self._num_envs)
        self._frames[places] = obs
        return places.astype(np.int32)

    def read(self, places: Int[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Observations at some places: their shape, then an observation's."""
        return self._frames[places]

    def fetch(self, places: tuple[Any, Any]) -> Future[tuple[np.ndarray, np.ndarray]]:
        """Begin to read two sets of places, in a thread."""
        return self._thread.submit(lambda: (self.read(places[0]), self.read(places[1])))

    @property
    def shape(self) -> tuple[int, int]:
        """Slots and environments."""
        return self._slots, self._num_envs

    def close(self) -> None:
        """End the thread and give the memory or the file back."""
        self._thread.shutdown()
        self._frames = np.zeros(0, np.uint8)
        if self._path is not None and not self._nameless:
            _remove(self._path)


def check_store(
    *,
    capacity: int,
    num_envs: int,
    obs_shape: tuple[int, ...],
    obs_dtype: DTypeLike,
    bytes_available: int,
    where: str,
    smallest: int = 1,
) -> None:
    """Raise `ValueError` where a store of these sizes does not fit, with the largest capacity that does.

    Args:
        capacity: As `FrameStore` has it.
        num_envs: As `FrameStore` has it.
        obs_shape: As `FrameStore` has it.
        obs_dtype: As `FrameStore` has it.
        bytes_available: Bytes free.
        where: What should be freed where even the smallest ring does not fit.
        smallest: Rows of the smallest ring that can be sampled from.
    """
    row_bytes = prod(obs_shape) * np.dtype(obs_dtype).itemsize
    check_fits(capacity, num_envs, row_bytes, bytes_available, smallest, where)


def _reserve(path: Path | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if path is not None and path.exists():
        raise ValueError(f"replay's file {path} exists: name another")
    try:
        if path is None:
            frames = np.empty(shape, dtype)
            frames.fill(0)  # zeros would be taken only as they are written
            return frames
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        _take_blocks(path, frames.nbytes)
        _remove(path)
    except BaseException as error:
        if path is not None:
            _remove(path)
        if not isinstance(error, OSError | MemoryError):
            raise
        place, reason = path or "memory", getattr(error, "strerror", None) or error
        raise ValueError(f"replay of {prod(shape) * dtype.itemsize:,} bytes in {place}: {reason}") from error
    return frames


def _take_blocks(path: Path, num_bytes: int) -> None:
    """Have the blocks of a file: a memory map of a sparse one that meets a full disk kills the process.

    Where they cannot be reserved, zeros are written, which a file system that compresses may still not keep.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                return
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
        file.seek(size - num_bytes)
        for start in range(0, num_bytes, _BLOCK):
            file.write(bytes(min(_BLOCK, num_bytes - start)))
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # a file that is mapped keeps its name on some systems
        path.unlink()


def with_frame_store(agent: Agent, store: FrameStore, *, updates: int, stacked: bool) -> Agent:
    """The same agent with its frames in a store. Its `observe`, `sample` and `learn` are no longer pure.

    Args:
        agent: An agent of a config whose `replay_storage` is not "device".
        store: As large as the agent's ring.
        updates: Updates of one `learn`, the config's `updates_per_batch`.
        stacked: Whether observations are stacks of frames.

    Raises:
        ValueError: In `observe`, if the store is not as large as the ring.

    Returns:
        The agent; it gives the samples that one with frames on the device gives for the same key.
    """
    size = -(-updates // PIECES)
    cuts = [slice(start, start + size) for start in range(0, updates, size)]

    @jax.jit
    def arrange(windows: Batch, obs: Array, next_obs: Array, keys: Key[Array, " U"]) -> Batch:
        if stacked:  # [U, B, K, *obs]
            obs, next_obs = join_frames(obs, obs.ndim - 3), join_frames(next_obs, next_obs.ndim - 3)
        return agent.augment(keys, windows._replace(obs=obs, next_obs=next_obs))

    def pieces(ring: ReplayState, key: Key[Array, ""]) -> Iterator[Batch]:
        windows, keys = agent.draw(ring, key)
        places = np.asarray(windows.obs), np.asarray(windows.next_obs)
        fetched = store.fetch((places[0][cuts[0]], places[1][cuts[0]]))
        for cut, following in zip(cuts, [*cuts[1:], None], strict=True):
            frames = fetched.result()
            if following is not None:
                fetched = store.fetch((places[0][following], places[1][following]))
            yield arrange(jax.tree.map(lambda x, cut=cut: x[cut], windows), *frames, keys[cut])

    def observe(state: AgentState, rows: Rows) -> AgentState:
        if state.replay.rows.action.shape != store.shape:
            raise ValueError(f"a store of {store.shape} places is not the ring's {state.replay.rows.action.shape}")
        return agent.observe(state, rows._replace(obs=store.write(int(state.replay.cursor), rows.obs)))

    def sample(ring: ReplayState, key: Key[Array, ""]) -> Batch:
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces(ring, key))

    def learn(state: AgentState) -> tuple[AgentState, Metrics]:
        if not bool(agent.replay.can_sample(state.replay)):
            return state, dict.fromkeys(METRICS, jnp.full(updates, jnp.nan))
        key, sample_key = jax.random.split(state.key)
        learner, traces = state.learner, []
        for batches in pieces(state.replay, sample_key):
            learner, metrics = agent.update(learner, batches)
            traces.append(metrics)
        actor = state.actor._replace(params=copy(learner.params))
        metrics = jax.tree.map(lambda *parts: jnp.concatenate(parts), *traces)
        return state._replace(learner=learner, actor=actor, key=key), metrics

    return agent._replace(observe=observe, sample=sample, learn=learn)
