"""Replay on disk: the rows of a ring in compressed files of a few MiB, written and read one at a time.

    replay/00000.npz    slots 0 to 255: obs, action, reward, terminated, last, episode_step, as `numpy.load` reads them
    replay/00001.npz    slots 256 to 511

Slots are those of the ring, so that a file in which nothing was overwritten is the same in the next checkpoint: it is
neither read from the device nor compressed again (`reuse.py`).
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

from jaxdqn.agent import Agent, AgentState
from jaxdqn.checkpoints.reuse import EarlierReplay, Reuse
from jaxdqn.replay import ReplayState
from jaxdqn.types import Rows

CHUNK_BYTES = 2**23
"""Bytes of a file, uncompressed: what a checkpoint takes in memory, twice."""

LEVEL = 1
"""Of zlib. Frames of CartPole shrink to 4 % at 430 MB/s; higher levels gain little."""

WORTH_IT = 0.9
"""Share of its size below which a file is kept compressed."""


def chunk_slots(rows: Rows, obs_bytes: int) -> int:
    """Slots of a file."""
    return max(CHUNK_BYTES // (rows.action.shape[1] * (obs_bytes + 14)), 1)


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
        folder: Where to; must not exist.
        ring: The ring, left as it is.
        rows: Rows of each environment that it has been given since the run began.
        read_obs: From what the ring holds in place of observations to observations; None where it holds them.
        earlier: The same ring as it was written before, whose files serve where nothing has changed.

    Returns:
        Entries for the manifest of files that were there before: those are not read again to make them.

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
            entry = None if reuse is None else reuse.take_over(name, first, count, folder)
            if entry is not None:
                known[name] = entry
                continue
            piece = jax.tree.map(np.asarray, _slice(ring.rows, first, length=count))
            if read_obs is not None:
                piece = piece._replace(obs=read_obs(piece.obs))
            written.append(threads.submit(_write, folder / name, piece))
            if len(written) > 1:  # one is compressed while the next is read: no more than that lies in memory
                written.pop(0).result()
        for rest in written:
            rest.result()
    return known


def read_replay(
    parts: Sequence[tuple[Sequence[Path], slice]], agent: Agent, state: AgentState, *, cursor: int, size: int
) -> AgentState:
    """A fresh agent's state with the rows of some files.

    Args:
        parts: Of each process that had written rows: its files, checked, in the order of the slots, and which of its
            environments are wanted.
        agent: The agent, whose `observe` puts rows where they belong; with a frame store, into that as well.
        state: Its state with an empty ring; the ring is consumed.
        cursor: The ring's.
        size: The ring's.

    Raises:
        ValueError: If the files are those of another ring.
    """
    found = 0
    for paths in zip(*(files for files, _ in parts), strict=True):
        pieces = [_read(path, columns) for path, (_, columns) in zip(paths, parts, strict=True)]
        piece = Rows(*(np.concatenate(field, axis=1) for field in zip(*pieces, strict=True)))
        _check(piece, state.replay.rows, paths[0])
        state = agent.observe(state, piece)
        found += len(piece.action)
    if found != size:
        raise ValueError(f"files of replay hold {found} rows an environment of {size}")
    ring = state.replay._replace(cursor=jnp.int32(cursor), size=jnp.int32(size))
    return state._replace(replay=ring)


@partial(jax.jit, donate_argnums=0)
def cut_open_episodes(ring: ReplayState) -> ReplayState:
    """The newest row of each environment becomes the final observation of an episode that was truncated there.

    For environments that were lost: the next row then opens an episode, and no window goes from one to the other.
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
    pays = len(zlib.compress(sample, LEVEL)) < WORTH_IT * len(sample)
    method = zipfile.ZIP_DEFLATED if pays else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "x", method, compresslevel=LEVEL) as archive:
        for name, values in piece._asdict().items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)


def slots_of(path: Path) -> int:
    """Slots that a file holds."""
    with np.load(path, allow_pickle=False) as archive:
        return len(archive["last"])


def _read(path: Path, columns: slice) -> Rows:
    with np.load(path, allow_pickle=False) as archive:
        return Rows(**{name: archive[name][:, columns] for name in Rows._fields})


def _check(piece: Rows, like: Rows, path: Path) -> None:
    wanted = [(name, getattr(like, name)) for name in Rows._fields if name != "obs"]
    for name, ring in wanted:
        found = getattr(piece, name)
        if (found.shape[1:], found.dtype) != (ring.shape[1:], ring.dtype):
            raise ValueError(
                f"{path} holds {name} {found.shape} {found.dtype}, and the ring {ring.shape} {ring.dtype}: "
                "it was written by another config"
            )
