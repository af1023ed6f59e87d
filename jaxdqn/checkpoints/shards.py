"""What each process of a run keeps in a state of it: its environments, and the rows that they have given.

    states/00012000/envs.npz                of the first process, whose part is the state's own folder
    states/00012000/rest.npz                with loop "device": the bytes of the arrays that its environments are
    states/00012000/replay/
    states/00012000/process-1/envs.npz      of the second one, with a manifest of its own
    states/00012000/process-1/replay/

Of a run of one process there is the first part only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdqn.agent import Agent, AgentState
from jaxdqn.checkpoints.replay import read_replay, slots_of, write_replay
from jaxdqn.checkpoints.reuse import EarlierReplay, WrittenFile, WrittenReplay
from jaxdqn.envs.functional.adapters import is_key
from jaxdqn.envs.vector.snapshots import Snapshot
from jaxdqn.replay import ReplayState
from jaxdqn.storage.manifest import DamagedError, read_manifest


class SavedState(NamedTuple):
    """A state on disk, every byte of it checked.

    Attributes:
        folder: Where it is.
        facts: What its manifest says.
        notes: What is to be told: newer ones that are damaged.
        missing_processes: Processes whose parts are not there, as where they lay on disks of their own.
    """

    folder: Path
    facts: dict[str, Any]
    notes: list[str]
    missing_processes: list[str]

    @property
    def processes(self) -> int:
        """How many processes the run had."""
        return self.facts["processes"]

    @property
    def has_replay(self) -> bool:
        """Whether the rows of all environments are there."""
        return self.facts["replay"] and not self.missing_processes

    def part(self, index: int) -> Path:
        """The folder of a process's part."""
        return part_of_state(self.folder, index)

    def is_of(self, processes: int) -> bool:
        """Whether so many processes can go on from it each with its own part."""
        return self.processes == processes and not self.missing_processes


_KINDS: dict[str, type] = {
    "frames": int,
    "processes": int,
    "cursor": int,
    "size": int,
    "replay": bool,
    "leaves": list,
    "rest": list,
}


def check_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Raise `DamagedError` where a state's manifest lacks what `States` writes into each, or has it of another kind."""
    for name, kind in _KINDS.items():
        value = facts.get(name)
        if type(value) is not kind or (isinstance(value, int) and value < (name == "processes")):
            raise DamagedError(f"{folder} says {name} {value!r}, which no run has written: it is damaged")


def part_of_state(folder: Path, index: int) -> Path:
    """The folder of a process's part of a state."""
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
        folder: Where to.
        ring: Its replay; None keeps none.
        rows: As `write_replay` has it.
        rest: The arrays that its functional environments are.
        envs: Its gymnasium environments.
        read_obs: As `write_replay` has it.
        earlier: As `write_replay` has it.

    Returns:
        Entries for the manifest that need not be made again, by the names that it has for them.
    """
    if envs is not None:
        np.savez(folder / "envs.npz", **envs)  # type: ignore[arg-type]  # none of them is named allow_pickle
    if rest is not None:
        # As bytes: numpy has no name for some dtypes of JAX, and orbax writes on the first process only.
        as_bytes = {name: np.frombuffer(x.tobytes(), np.uint8) for name, x in rest.items()}
        np.savez(folder / "rest.npz", **as_bytes)  # type: ignore[arg-type]  # none of them is named allow_pickle
    if ring is None:
        return {}
    known = write_replay(folder / "replay", ring, rows=rows, read_obs=read_obs, earlier=earlier)
    return {f"replay/{name}": entry for name, entry in known.items()}


def read_envs(saved: SavedState, index: int, processes: int) -> Snapshot | None:
    """A process's gymnasium environments; None where they could not be saved, or were split otherwise."""
    path = saved.part(index) / "envs.npz"
    if not path.is_file() or not saved.is_of(processes):
        return None
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def read_rest(folder: Path, like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays that a part has besides, of dtypes and shapes that are known."""
    with np.load(folder / "rest.npz", allow_pickle=False) as archive:
        return {name: archive[name].view(x.dtype).reshape(x.shape) for name, x in like.items()}


def read_rows(saved: SavedState, agent: Agent, state: AgentState, index: int, processes: int) -> AgentState:
    """A fresh agent's state with the rows of a process's environments, however many processes had written them.

    Args:
        saved: The state, which has replay.
        agent: As `read_replay` has it.
        state: As `read_replay` has it.
        index: Which of the processes this is.
        processes: How many there are.
    """
    slots, here = state.replay.rows.action.shape
    for name, most in (("cursor", slots - 1), ("size", slots)):
        if saved.facts[name] > most:
            raise ValueError(f"{saved.folder} has {name} {saved.facts[name]} of at most {most}: it is damaged")
    width = here * processes // saved.processes
    parts = []
    for part in range(saved.processes):
        columns = slice(max(here * index - width * part, 0), max(here * (index + 1) - width * part, 0))
        if columns.start < min(columns.stop, width):
            parts.append((replay_paths(saved.part(part)), columns))
    return read_replay(parts, agent, state, cursor=saved.facts["cursor"], size=saved.facts["size"])


def check_same_arrays(saved: SavedState, ours: list[str], theirs: list[str]) -> None:
    """Raise `ValueError` where a state holds other arrays than a run has, by what `flat` says of them."""
    for mine, other in zip(ours, theirs, strict=False):
        if mine != other:
            wide = mine.replace("64", "32") == other.replace("64", "32")
            why = "set JAX_ENABLE_X64 as it was then" if wide else "it is of another architecture"
            raise ValueError(f"{saved.folder} holds {other} where this run has {mine}: {why}")
    if len(ours) != len(theirs):
        raise ValueError(f"{saved.folder} holds {len(theirs)} arrays and this run has {len(ours)}")


def replay_paths(folder: Path) -> list[Path]:
    """Files of a part's rows, in the order of the slots."""
    return [folder / name for name in sorted(read_manifest(folder)["files"]) if name.startswith("replay/")]


def written_files_in(folder: Path, cursor: int, rows: int, times: int = 0) -> WrittenReplay:
    """A process's rows as they lie on disk, where all of them were found whole.

    Args:
        folder: Its part.
        cursor: Slot of the next row.
        rows: Rows of each environment by then.
        times: As `WrittenReplay` has it.
    """
    listed = read_manifest(folder)["files"]
    files = {
        Path(name).name: WrittenFile(entry, (folder / name).stat().st_mtime_ns, slots_of(folder / name))
        for name, entry in listed.items()
        if name.startswith("replay/")
    }
    return WrittenReplay(folder / "replay", cursor, rows, files, times)


def flatten(*trees: Any) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays by number, and what each is; keys as the numbers that they are made of."""
    saved = jax.tree_util.tree_leaves_with_path(trees)
    arrays = [jax.random.key_data(leaf) if is_key(leaf) else leaf for _, leaf in saved]
    names = [
        f"{jax.tree_util.keystr(path)[3:]} {array.dtype}{list(array.shape)}"
        for (path, _), array in zip(saved, arrays, strict=True)
    ]
    return {f"{index:04d}": np.asarray(array) for index, array in enumerate(arrays)}, names


def unflatten(arrays: dict[str, np.ndarray], *trees: Any) -> Any:
    """The inverse of `flat`: arrays in place of those of some trees."""
    old, structure = jax.tree.flatten(trees)
    new = [jax.numpy.array(arrays[f"{index:04d}"]) for index in range(len(old))]
    keys = [jax.random.wrap_key_data(new) if is_key(old) else new for old, new in zip(old, new, strict=True)]
    return jax.tree.unflatten(structure, keys)
