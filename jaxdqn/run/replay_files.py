"""Replay on disk: the rows of a ring in compressed files of a few MiB, written and read one at a time.

    replay/00000.npz    slots 0 to 255: obs, action, reward, terminated, last, episode_step, as `numpy.load` reads them
    replay/00001.npz    slots 256 to 511

Slots are those of the ring, so that a file in which nothing was overwritten is the same in the next checkpoint: it is
neither read from the device nor compressed again. It is linked from the checkpoint that is deleted when the new one is
whole, and else copied from the newest one: no two checkpoints that are kept share a file, of which a bit that flips
would damage both.
"""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxdqn.agent import Agent, AgentState
from jaxdqn.replay import ReplayState
from jaxdqn.types import Rows

CHUNK_BYTES = 2**23
"""Bytes of a file, uncompressed: what a checkpoint takes in memory, twice."""

LEVEL = 1
"""Of zlib. Frames of CartPole shrink to 4 % at 430 MB/s; higher levels gain little."""

_PIECE = 2**20
"""Bytes that are copied at once."""

WORTH_IT = 0.9
"""Share of its size below which a file is kept compressed."""


class Written(NamedTuple):
    """A ring as it lies on disk.

    Attributes:
        folder: Where its files are.
        cursor: Slot of the next row at that time.
        rows: Rows of each environment that the ring had been given by then.
        files: What each file was when it was whole, by its name.
    """

    folder: Path
    cursor: int
    rows: int
    files: dict[str, WrittenFile]


class WrittenFile(NamedTuple):
    """A file that was whole at a moment.

    Attributes:
        entry: Its entry in the manifest: size and SHA-256.
        changed: When its content was last changed by then, in nanoseconds.
    """

    entry: dict[str, Any]
    changed: int


def chunk_slots(rows: Rows, obs_bytes: int) -> int:
    """Slots of a file."""
    return max(CHUNK_BYTES // (rows.action.shape[1] * (obs_bytes + 14)), 1)


def write_replay(
    folder: Path,
    ring: ReplayState,
    *,
    rows: int,
    read_obs: Callable[[Any], np.ndarray] | None = None,
    newest: Written | None = None,
    expiring: Written | None = None,
) -> dict[str, Any]:
    """Write a ring's rows.

    Args:
        folder: Where to; must not exist.
        ring: The ring, left as it is.
        rows: Rows of each environment that it has been given since the run began.
        read_obs: From what the ring holds in place of observations to observations; None where it holds them.
        newest: The same ring as it was written the last time, whose files serve where nothing has changed.
        expiring: The same in a checkpoint that is deleted next, whose files are taken over.

    Returns:
        Entries for the manifest of files that were there before: those are not read again to make them.
    """
    folder.mkdir()
    size, slots = int(ring.size), ring.rows.action.shape[0]
    obs = ring.rows.obs[:1] if read_obs is None else read_obs(np.asarray(ring.rows.obs[:1]))
    length = chunk_slots(ring.rows, obs[0, 0].nbytes)
    sources = [(source, _overwritten(source, rows, slots)) for source in (expiring, newest) if source is not None]
    written: list[Any] = []
    known: dict[str, Any] = {}
    with ThreadPoolExecutor(2, "checkpoint") as threads:
        for index, first in enumerate(range(0, size, length)):
            name, count = f"{index:05d}.npz", min(length, size - first)
            same = (source for source, overwritten in sources if not overwritten[first : first + length].any())
            entry = next(filter(None, (_taken_over(s, name, folder, link=s is expiring) for s in same)), None)
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


def _taken_over(source: Written, name: str, folder: Path, *, link: bool) -> dict[str, Any] | None:
    """Link or copy a file that was written before; None where it is not there, or no longer what was written."""
    old, path = source.folder / name, folder / name
    known = source.files.get(name)
    try:
        found = old.stat()
        if known is None or (found.st_size, found.st_mtime_ns) != (known.entry["bytes"], known.changed):
            return None
        if link:
            with contextlib.suppress(OSError):  # some file systems have no links
                path.hardlink_to(old)
                return known.entry
        digest = _copy(old, path)
    except FileNotFoundError:
        return None
    if digest != known.entry["sha256"]:
        path.unlink()
        return None
    return known.entry


def _copy(old: Path, path: Path) -> str:
    """Copy a file, and give the SHA-256 of what was read."""
    digest = hashlib.sha256()
    with old.open("rb") as source, path.open("xb") as target:
        while piece := source.read(_PIECE):
            digest.update(piece)
            target.write(piece)
    return digest.hexdigest()


def _overwritten(before: Written, rows: int, slots: int) -> np.ndarray:
    """Which slots have other rows than when they were written before `[L]`."""
    changed = np.ones(slots, bool)
    if 0 <= rows - before.rows < slots:
        changed[:] = False
        changed[(before.cursor + np.arange(rows - before.rows)) % slots] = True
    return changed


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
