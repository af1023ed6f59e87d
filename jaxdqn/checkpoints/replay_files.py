"""Replay on disk: the rows of a ring in compressed files of a few MiB, written and read one at a time.

    replay/00000.npz    slots 0 to 255: obs, action, reward, terminated, last, episode_step, readable with `numpy.load`
    replay/00001.npz    slots 256 to 511

Slots are those of the ring, so a file whose slots were not overwritten is the same in the next checkpoint: it is
neither read from the device nor compressed again (see `reuse.py`).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxdqn.agent.agent import Agent, AgentState
from jaxdqn.checkpoints.replay_reuse import EarlierReplay, Reuse
from jaxdqn.replay.ring import ReplayState
from jaxdqn.types import Rows

CHUNK_BYTES = 2**23
"""Uncompressed bytes of a file. Writing a checkpoint takes twice as much memory."""

COMPRESSION_LEVEL = 1
"""Level of zlib. Frames of CartPole shrink to 4 % at 430 MB/s; higher levels gain little."""

MAX_COMPRESSED_RATIO = 0.9
"""A file is compressed only if a sample of it shrinks below this share of its size."""


def chunk_slots(rows: Rows, obs_bytes: int) -> int:
    """Return the number of slots in a file."""
    masks = 0 if rows.mask is None else rows.mask.shape[-1]
    return max(CHUNK_BYTES // (rows.action.shape[1] * (obs_bytes + 14 + masks)), 1)


def write_replay(
    folder: Path,
    ring: ReplayState,
    *,
    rows: int,
    read_obs: Callable[[Any], np.ndarray] | None = None,
    earlier: EarlierReplay | None = None,
) -> dict[str, Any]:
    """Write a ring's rows.

    Args:
        folder: Folder to create; must not exist.
        ring: The ring; not modified.
        rows: Rows of each environment that were added to the ring since the run began.
        read_obs: Maps what the ring holds in place of observations to observations; None if it holds observations.
        earlier: Earlier checkpoints of the same ring, whose unchanged files are reused.

    Returns:
        Manifest entries of the reused files, by file name, so that these files need not be read again.

    Raises:
        OSError: If a file cannot be written.
    """
    folder.mkdir()
    size, slots = int(ring.size), ring.rows.action.shape[0]
    obs = ring.rows.obs[:1] if read_obs is None else read_obs(np.asarray(ring.rows.obs[:1]))
    length = chunk_slots(ring.rows, obs[0, 0].nbytes)
    reuse = None if earlier is None else Reuse(earlier, rows=rows, slots=slots, length=length)
    written: list[Any] = []
    known: dict[str, Any] = {}
    with ThreadPoolExecutor(2, "checkpoint") as threads:
        for index, first in enumerate(range(0, size, length)):
            name, count = f"{index:05d}.npz", min(length, size - first)
            entry = None if reuse is None else reuse.try_reuse(name, first, count, folder)
            if entry is not None:
                known[name] = entry
                continue
            piece = jax.tree.map(np.asarray, _slice(ring.rows, first, length=count))
            if read_obs is not None:
                piece = piece._replace(obs=read_obs(piece.obs))
            written.append(threads.submit(_write, folder / name, piece))
            if len(written) > 1:  # at most two chunks in memory: one is compressed while the next is read
                written.pop(0).result()
        for rest in written:
            rest.result()
    return known


def read_replay(
    parts: Sequence[tuple[Sequence[Path], slice]], agent: Agent, state: AgentState, *, cursor: int, size: int
) -> AgentState:
    """Return an agent's state with the rows of the files in its ring.

    Args:
        parts: For each process that wrote rows that are needed: its files, already checked, in the order of the slots,
            and the columns (environments) to read from them.
        agent: The agent. Its `observe` adds the rows to the ring, and to the frame store if there is one.
        state: Its state with an empty ring; the ring is consumed.
        cursor: Cursor of the saved ring.
        size: Size of the saved ring, in slots.

    Raises:
        ValueError: If the files were written from another kind of ring.
    """
    found, rows = 0, state.replay.rows
    for paths in zip(*(files for files, _ in parts), strict=True):
        pieces = [_read(path, columns, like=rows) for path, (_, columns) in zip(paths, parts, strict=True)]
        piece = jax.tree.map(lambda *fields: np.concatenate(fields, axis=1), *pieces)
        _check_rows(piece, rows, paths[0])
        state = agent.observe(state, piece)
        found += len(piece.action)
    if found != size:
        raise ValueError(f"replay files hold {found} rows per environment and not {size}: the state is damaged")
    ring = state.replay._replace(cursor=jnp.int32(cursor), size=jnp.int32(size))
    return state._replace(replay=ring)


@partial(jax.jit, donate_argnums=0)
def cut_open_episodes(ring: ReplayState) -> ReplayState:
    """Return the ring with the newest row of each environment marked as the final observation of a truncated episode.

    For environments that could not be restored: their next row starts a new episode, and no window spans both episodes.
    """
    newest = (ring.cursor - 1) % ring.rows.action.shape[0]
    rows = ring.rows._replace(
        reward=ring.rows.reward.at[newest].set(0.0),
        terminated=ring.rows.terminated.at[newest].set(False),
        last=ring.rows.last.at[newest].set(True),
    )
    cut = ring._replace(rows=rows)
    return jax.tree.map(partial(jnp.where, ring.size > 0), cut, ring)


@partial(jax.jit, static_argnames="length")
def _slice(rows: Rows, first: Int[Array, ""], *, length: int) -> Rows:
    return jax.tree.map(lambda ring: jax.lax.dynamic_slice_in_dim(ring, first, length), rows)


def _write(path: Path, piece: Rows) -> None:
    sample = piece.obs.reshape(-1).view(np.uint8)[: 2**16].tobytes()
    shrinks = len(zlib.compress(sample, COMPRESSION_LEVEL)) < MAX_COMPRESSED_RATIO * len(sample)
    method = zipfile.ZIP_DEFLATED if shrinks else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "x", method, compresslevel=COMPRESSION_LEVEL) as archive:
        for name, values in piece._asdict().items():
            if values is None:  # rows without masks
                continue
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)


def slots_of(path: Path) -> int:
    """Return the number of slots in a file."""
    with np.load(path, allow_pickle=False) as archive:
        return len(archive["last"])


def _read(path: Path, columns: slice, *, like: Rows) -> Rows:
    with np.load(path, allow_pickle=False) as archive:
        rows = Rows(**{name: archive[name][:, columns] for name in Rows._fields if name in archive})
    if like.mask is None or rows.mask is not None:
        return rows
    # A file of a version without masks, which allowed all actions.
    return rows._replace(mask=np.ones((*rows.action.shape, like.mask.shape[-1]), bool))


def _check_rows(piece: Rows, like: Rows, path: Path) -> None:
    for name in Rows._fields:
        ring, found = getattr(like, name), getattr(piece, name)
        if name == "obs" or (ring is None and found is None):
            continue
        if ring is None or found is None:
            raise ValueError(
                f"{path} holds {'no ' if found is None else ''}{name}: the file was written with another env"
            )
        if (found.shape[1:], found.dtype) != (ring.shape[1:], ring.dtype):
            raise ValueError(
                f"{path} holds {name} {found.shape} {found.dtype} and the ring {ring.shape} {ring.dtype}: "
                "the file was written with another config"
            )
