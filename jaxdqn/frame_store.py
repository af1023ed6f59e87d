"""Replay whose frames are not on the device but in the host's memory or in a file.

The ring on the device differs in one thing only: in place of an observation it holds its index in the store. The same
functions with the same keys sample, stack and cut windows, of indices instead of observations. A thread fetches the
frames of the next updates while the device runs the current ones.
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

from jaxdqn.agent.agent import Agent, AgentState
from jaxdqn.learner import Metrics, copy
from jaxdqn.preprocessing import join_frames
from jaxdqn.replay.ring import ReplayState
from jaxdqn.types import Rows, Sample

MAX_FETCHES = 4
"""Maximum number of fetches into which the updates after a batch are split. The device waits only for the first."""

_WRITE_BYTES = 2**24
"""Zeros that are written at a time if blocks of a file cannot be reserved."""


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
        """Allocate all the memory, or all the blocks of the file if the file system can reserve them, in advance.

        Args:
            capacity: Rows over all environments; rounded down to a multiple of `num_envs`.
            num_envs: Number of environments that step together.
            obs_shape: Shape of one observation (one frame).
            obs_dtype: Its dtype.
            path: File of a NumPy memory map; None keeps frames in memory. If the system allows it, the file is unlinked
                as soon as it is mapped, so that it disappears with the process, even if that is killed.

        Raises:
            ValueError: If the memory or the file cannot be allocated; no file is left then.
        """
        self._num_envs = num_envs
        self._slots = capacity // num_envs
        self._path = path
        shape = (self._slots * num_envs, *obs_shape)
        self._frames = _allocate(path, shape, np.dtype(obs_dtype))
        self._is_unlinked = path is None or not path.exists()
        self._thread = ThreadPoolExecutor(1, "replay")

    def write(self, cursor: int, obs: Shaped[Any, "T N *obs"]) -> Int[np.ndarray, "T N"]:
        """Write rows at the ring's cursor, and return their indices."""
        slots = (cursor + np.arange(len(obs))) % self._slots
        places = slots[:, None] * self._num_envs + np.arange(self._num_envs)
        self._frames[places] = obs
        return places.astype(np.int32)

    def read(self, places: Int[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Return the observations at some indices: the shape of `places`, then an observation's."""
        return self._frames[places]

    def fetch(self, places: tuple[Any, Any]) -> Future[tuple[np.ndarray, np.ndarray]]:
        """Start to read two sets of indices, in a thread."""
        return self._thread.submit(lambda: (self.read(places[0]), self.read(places[1])))

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of slots and environments."""
        return self._slots, self._num_envs

    def close(self) -> None:
        """Stop the thread, and free the memory or delete the file."""
        self._thread.shutdown()
        self._frames = np.zeros(0, np.uint8)
        if self._path is not None and not self._is_unlinked:
            _remove(self._path)


def _allocate(path: Path | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if path is not None and path.exists():
        raise ValueError(f"replay file {path} already exists: choose another name")
    try:
        if path is None:
            frames = np.empty(shape, dtype)
            frames.fill(0)  # np.zeros would allocate pages only when they are written
            return frames
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        _allocate_blocks(path, frames.nbytes)
        _remove(path)
    except BaseException as error:
        if path is not None:
            _remove(path)
        if not isinstance(error, OSError | MemoryError):
            raise
        place, reason = path or "memory", getattr(error, "strerror", None) or error
        num_bytes = prod(shape) * dtype.itemsize
        raise ValueError(f"replay of {num_bytes:,} bytes cannot be allocated in {place}: {reason}") from error
    return frames


def _allocate_blocks(path: Path, num_bytes: int) -> None:
    """Allocate the blocks of a file: writing to a memory map of a sparse file kills the process if the disk is full.

    If blocks cannot be reserved, zeros are written; a compressing file system may still allocate no blocks for them.
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
        for start in range(0, num_bytes, _WRITE_BYTES):
            file.write(bytes(min(_WRITE_BYTES, num_bytes - start)))
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # some systems cannot unlink a mapped file
        path.unlink()


def with_frame_store(agent: Agent, store: FrameStore, *, updates: int, stacked: bool) -> Agent:
    """Return the agent with its frames in a store. Its `observe`, `sample` and `learn` are no longer pure.

    Args:
        agent: An agent of a config whose `replay_storage` is not "device".
        store: A store of the same size as the agent's ring.
        updates: Updates of one `learn`: the config's `updates_per_batch`.
        stacked: Whether observations are stacks of frames.

    Raises:
        ValueError: In `observe`, if the store and the ring differ in size.

    Returns:
        The agent. For the same key its samples equal those of an agent with frames on the device.
    """
    size = -(-updates // MAX_FETCHES)
    change_priorities = jax.jit(agent.replay.update_priorities, donate_argnums=0)
    cuts = [slice(start, start + size) for start in range(0, updates, size)]

    @jax.jit
    def arrange(windows: Sample, obs: Array, next_obs: Array, keys: Key[Array, " U"]) -> Sample:
        if stacked:  # [U, B, K, *obs]
            obs, next_obs = join_frames(obs, obs.ndim - 3), join_frames(next_obs, next_obs.ndim - 3)
        batch = windows.batch._replace(obs=obs, next_obs=next_obs)
        return windows._replace(batch=agent.internals.augment(keys, batch))

    def pieces(ring: ReplayState, key: Key[Array, ""], beta: Any) -> Iterator[Sample]:
        windows, keys = agent.internals.draw(ring, key, beta)
        places = np.asarray(windows.batch.obs), np.asarray(windows.batch.next_obs)
        fetched = store.fetch((places[0][cuts[0]], places[1][cuts[0]]))
        for cut, following in zip(cuts, [*cuts[1:], None], strict=True):
            frames = fetched.result()
            if following is not None:
                fetched = store.fetch((places[0][following], places[1][following]))
            yield arrange(jax.tree.map(lambda x, cut=cut: x[cut], windows), *frames, keys[cut])

    def observe(state: AgentState, rows: Rows) -> AgentState:
        if state.replay.rows.action.shape != store.shape:
            ring_shape = state.replay.rows.action.shape
            raise ValueError(f"the frame store has shape {store.shape} and the ring {ring_shape}: make them equal")
        return agent.observe(state, rows._replace(obs=store.write(int(state.replay.cursor), rows.obs)))

    def sample(ring: ReplayState, key: Key[Array, ""], beta: Any = 1.0) -> Sample:
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces(ring, key, beta))

    def learn(state: AgentState) -> tuple[AgentState, Metrics]:
        ring = state.replay
        if not bool(agent.replay.can_sample(ring)):
            return state, dict.fromkeys(agent.internals.metric_names, jnp.full(updates, jnp.nan))
        key, sample_key, update_key = jax.random.split(state.key, 3)
        keys = jax.random.split(update_key, updates)
        learner, traces = state.learner, []
        beta = 1.0 if ring.priorities is None else agent.beta(state.actor.frame)
        for cut, samples in zip(cuts, pieces(ring, sample_key, beta), strict=True):
            learner, metrics, priority = agent.update(learner, samples, keys[cut])
            traces.append((metrics, samples.index, priority))
        metrics, index, priority = jax.tree.map(lambda *parts: jnp.concatenate(parts), *traces)
        actor = state.actor._replace(params=copy(learner.params))
        return AgentState(learner, change_priorities(ring, index, priority), actor, key), metrics

    return agent._replace(observe=observe, sample=sample, learn=learn)
