"""The part of a state that each process of a run writes: its environments and their rows.

    states/0000012000/envs.npz                first process; its part is the state's own folder
    states/0000012000/rest.npz                with loop "device": the bytes of the arrays of functional environments
    states/0000012000/replay/
    states/0000012000/priorities.npz          with prioritised replay
    states/0000012000/process-1/envs.npz      second process; its part has its own manifest
    states/0000012000/process-1/replay/

A run with one process has only the first part.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdqn.agent.agent import Agent, AgentState
from jaxdqn.checkpoints.priority_files import read_priorities, write_priorities
from jaxdqn.checkpoints.replay_files import read_replay, slots_of, write_replay
from jaxdqn.checkpoints.replay_reuse import EarlierReplay, WrittenFile, WrittenReplay
from jaxdqn.checkpoints.run_manifest import RunManifest
from jaxdqn.envs.functional.adapters import is_key
from jaxdqn.envs.vector.snapshots import Snapshot
from jaxdqn.replay.ring import ReplayState
from jaxdqn.storage.checksums import read_manifest


class SavedState(NamedTuple):
    """A state on disk whose files have all been checked.

    Attributes:
        folder: Its folder.
        manifest: The fields of its manifest.
        notes: Messages for the user: newer states that are damaged.
        missing_processes: Processes whose parts are missing, for example because they are on another host's disk.
    """

    folder: Path
    manifest: RunManifest
    notes: list[str]
    missing_processes: list[str]

    @property
    def processes(self) -> int:
        """Return the number of processes that the run had."""
        return self.manifest.processes

    @property
    def has_replay(self) -> bool:
        """Return whether the rows of all environments are available."""
        return self.manifest.replay and not self.missing_processes

    def part(self, index: int) -> Path:
        """Return the folder of a process's part."""
        return part_of_state(self.folder, index)

    def is_complete_for(self, processes: int) -> bool:
        """Return whether each of `processes` processes can resume from its own part."""
        return self.processes == processes and not self.missing_processes


def part_of_state(folder: Path, index: int) -> Path:
    """Return the folder of a process's part of a state."""
    return folder / f"process-{index}" if index else folder


def write_part(
    folder: Path,
    *,
    ring: ReplayState | None,
    rows: int,
    rest: dict[str, np.ndarray] | None,
    envs: Snapshot | None,
    read_obs: Callable[[Any], np.ndarray] | None,
    earlier: EarlierReplay | None,
) -> dict[str, Any]:
    """Write a process's part.

    Args:
        folder: Folder to write to.
        ring: Its replay; None saves no replay.
        rows: See `write_replay`.
        rest: Arrays of its functional environments, or None.
        envs: State of its gymnasium environments, or None.
        read_obs: See `write_replay`.
        earlier: See `write_replay`.

    Returns:
        Manifest entries of reused files, by their names in the folder.
    """
    if envs is not None:
        np.savez(folder / "envs.npz", **envs)  # type: ignore[arg-type]  # no key is named allow_pickle
    if rest is not None:
        # As bytes: numpy does not know some dtypes of JAX, and orbax writes on the first process only.
        as_bytes = {name: np.frombuffer(x.tobytes(), np.uint8) for name, x in rest.items()}
        np.savez(folder / "rest.npz", **as_bytes)  # type: ignore[arg-type]  # no key is named allow_pickle
    if ring is None:
        return {}
    if ring.priorities is not None:
        write_priorities(folder, ring.priorities)
    known = write_replay(folder / "replay", ring, rows=rows, read_obs=read_obs, earlier=earlier)
    return {f"replay/{name}": entry for name, entry in known.items()}


def read_envs(saved: SavedState, index: int, processes: int) -> Snapshot | None:
    """Read a process's gymnasium environments; None if they could not be saved or the number of processes differs."""
    path = saved.part(index) / "envs.npz"
    if not path.is_file() or not saved.is_complete_for(processes):
        return None
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def read_rest(folder: Path, like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Read the arrays of a part's functional environments, with the dtypes and shapes of `like`."""
    with np.load(folder / "rest.npz", allow_pickle=False) as archive:
        return {name: archive[name].view(x.dtype).reshape(x.shape) for name, x in like.items()}


def read_rows(saved: SavedState, agent: Agent, state: AgentState, index: int, processes: int) -> AgentState:
    """Return an agent's state with the rows of a process's environments, for any number of processes that wrote them.

    Args:
        saved: The state; it must have replay.
        agent: See `read_replay`.
        state: See `read_replay`.
        index: Index of this process.
        processes: Number of processes.

    Raises:
        ValueError: If the saved cursor or size does not fit the ring, or there are no priorities and it needs them.
    """
    slots, num_envs = state.replay.rows.action.shape
    for name, maximum in (("cursor", slots - 1), ("size", slots)):
        if getattr(saved.manifest, name) > maximum:
            raise ValueError(
                f"{saved.folder} has {name} {getattr(saved.manifest, name)}, above {maximum}: it is damaged"
            )
    envs_per_part = num_envs * processes // saved.processes
    parts, folders = [], []
    for part in range(saved.processes):
        offset = envs_per_part * part
        columns = slice(max(num_envs * index - offset, 0), max(num_envs * (index + 1) - offset, 0))
        if columns.start < min(columns.stop, envs_per_part):
            parts.append((replay_paths(saved.part(part)), columns))
            folders.append((saved.part(part), columns))
    like, exact = state.replay.priorities, saved.is_complete_for(processes)
    priorities = None
    if like is not None:
        priorities = read_priorities(folders, like, slots=slots, num_envs=envs_per_part, exact=exact)
    state = read_replay(parts, agent, state, cursor=saved.manifest.cursor, size=saved.manifest.size)
    return state._replace(replay=state.replay._replace(priorities=priorities))


def check_same_arrays(saved: SavedState, ours: list[str], theirs: list[str]) -> None:
    """Raise `ValueError` if a state's arrays differ from the run's.

    Args:
        saved: The state.
        ours: Names, dtypes and shapes of the run's arrays, from `flatten`.
        theirs: The same of the state's arrays.
    """
    for ours_here, theirs_here in zip(ours, theirs, strict=False):
        if ours_here != theirs_here:
            only_precision = ours_here.replace("64", "32") == theirs_here.replace("64", "32")
            why = "set JAX_ENABLE_X64 as it was then" if only_precision else "it is of another architecture"
            raise ValueError(f"{saved.folder} holds {theirs_here} and this run has {ours_here}: {why}")
    if len(ours) != len(theirs):
        raise ValueError(f"{saved.folder} holds {len(theirs)} arrays and this run has {len(ours)}")


def replay_paths(folder: Path) -> list[Path]:
    """Return the files of a part's rows, in the order of the slots."""
    return [folder / name for name in sorted(read_manifest(folder)["files"]) if name.startswith("replay/")]


def written_files_in(folder: Path, cursor: int, rows: int, times: int = 0) -> WrittenReplay:
    """Return the record of a process's replay on disk, which must have been checked.

    Args:
        folder: The process's part.
        cursor: Slot of the next row.
        rows: Rows of each environment that had been added to the ring.
        times: `times_linked` of the `WrittenReplay`.
    """
    listed = read_manifest(folder)["files"]
    files = {
        Path(name).name: WrittenFile(entry, (folder / name).stat().st_mtime_ns, slots_of(folder / name))
        for name, entry in listed.items()
        if name.startswith("replay/")
    }
    return WrittenReplay(folder / "replay", cursor, rows, files, times)


def flatten(*trees: Any) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays of some trees by number, and the name, dtype and shape of each; keys become their key data."""
    saved = jax.tree_util.tree_leaves_with_path(trees)
    arrays = [jax.random.key_data(leaf) if is_key(leaf) else leaf for _, leaf in saved]
    names = [
        f"{jax.tree_util.keystr(path)[3:]} {array.dtype}{list(array.shape)}"
        for (path, _), array in zip(saved, arrays, strict=True)
    ]
    return {f"{index:04d}": np.asarray(array) for index, array in enumerate(arrays)}, names


def unflatten(arrays: dict[str, np.ndarray], *trees: Any) -> Any:
    """Undo `flatten`: return the trees with their arrays replaced by `arrays`."""
    old, structure = jax.tree.flatten(trees)
    new = [jax.numpy.array(arrays[f"{index:04d}"]) for index in range(len(old))]
    keys = [jax.random.wrap_key_data(new) if is_key(old) else new for old, new in zip(old, new, strict=True)]
    return jax.tree.unflatten(structure, keys)
