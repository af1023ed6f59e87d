"""The whole state of a run on disk, from which it goes on as if it had never stopped.

    states/00012000/manifest.json    format, config, versions, what the logs had got to, a SHA-256 of every file
    states/00012000/arrays/          by orbax: learner, actor, keys, and a functional environment's state
    states/00012000/envs.npz         gymnasium environments, where they can be saved
    states/00012000/replay/          the ring's rows

No file is a pickle: to read one runs no code of whoever wrote it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdqn.agent import Agent, AgentState
from jaxdqn.envs.adapters import is_key
from jaxdqn.envs.snapshots import Snapshot
from jaxdqn.run.arrays import load_arrays, save_arrays
from jaxdqn.run.manifest import DamagedError, read_manifest, sealed_folder, verified
from jaxdqn.run.replay_files import Written, read_replay, write_replay

FORMAT = 1
"""Of what is written here; another one is refused."""


class Found(NamedTuple):
    """A state on disk, every byte of it checked.

    Attributes:
        folder: Where it is.
        facts: What its manifest says.
        notes: What is to be told: newer ones that are damaged.
    """

    folder: Path
    facts: dict[str, Any]
    notes: list[str]


class States:
    """The states that a run keeps: the newest few."""

    def __init__(self, folder: Path, *, keep: int, with_replay: bool) -> None:
        """Look at a folder, which need not exist yet.

        Args:
            folder: `states` of a run.
            keep: How many to keep.
            with_replay: Whether replay is kept in them.
        """
        self._folder = folder
        self._keep = keep
        self._with_replay = with_replay
        self._written: Written | None = None

    def save(
        self,
        frames: int,
        state: AgentState,
        facts: dict[str, Any],
        *,
        rest: Any = None,
        envs: Snapshot | None = None,
        read_obs: Callable[[Any], np.ndarray] | None = None,
    ) -> Path:
        """Write a state; the older ones than the newest `keep` are deleted then.

        Args:
            frames: Rows collected so far, which name it.
            state: The agent's, left as it is.
            facts: What the manifest is to say besides, as JSON takes it.
            rest: Other arrays that decide the run's future.
            envs: Gymnasium environments.
            read_obs: As `write_replay` has it.

        Raises:
            OSError: If it cannot be written; nothing is left of it then, and the others are as they were.
        """
        names_taken = {path.name for path in self.all()}
        name = f"{frames:010d}"
        # The same moment again, with an evaluation that was due: nothing is replaced, so that one is there at any time.
        name = next(new for new in (name, *(f"{name}-{again}" for again in range(1, 1_000))) if new not in names_taken)
        target = self._folder / name
        self.sweep()
        leaves, names = _flat(_without_rows(state), rest)
        ring, num_envs = state.replay, state.replay.rows.action.shape[1]
        about = {
            "format": FORMAT,
            "frames": frames,
            "leaves": names,
            "cursor": int(ring.cursor),
            "size": int(ring.size),
            "replay": self._with_replay,
            **facts,
        }
        with sealed_folder(target, about) as aside:
            save_arrays(aside / "arrays", leaves)
            if envs is not None:
                np.savez(aside / "envs.npz", **envs)  # type: ignore[arg-type]  # none of them is named allow_pickle
            if self._with_replay:
                write_replay(aside / "replay", ring, rows=frames // num_envs, read_obs=read_obs, before=self._written)
        if self._with_replay:
            self._written = _written(target, int(ring.cursor), frames // num_envs)
        for old in self.all()[: -self._keep]:
            shutil.rmtree(old)
        return target

    def all(self) -> list[Path]:
        """Folders of the states that are there, oldest first."""
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted(path for path in found if path.is_dir() and re.fullmatch(r"\d{10}(-\d+)?", path.name))

    def newest(self) -> Found | None:
        """The newest state that is what was written; None where there is none at all.

        Raises:
            ValueError: If none of those that are there can be used.
        """
        notes: list[str] = []
        for folder in reversed(self.all()):
            try:
                facts = read_manifest(folder)
                if facts["format"] != FORMAT:
                    wrote = facts.get("versions", {}).get("jaxdqn", "unknown")
                    raise ValueError(
                        f"{folder} has format {facts['format']} and this jaxdqn reads {FORMAT}: "
                        f"resume with the jaxdqn that wrote it ({wrote})"
                    )
                return Found(folder, verified(folder), notes)
            except DamagedError as error:
                notes.append(str(error))
        if notes:
            raise ValueError(f"no state of {self._folder.parent} can be used: {'; '.join(notes)}")
        return None

    def agents(self) -> set[int]:
        """Frames of the agents that the states name as the last one and the best one."""
        found: set[int] = set()
        for folder in self.all():
            with contextlib.suppress(DamagedError):
                index = read_manifest(folder)["index"]
                found |= {index[name] for name in ("last", "best") if name in index}
        return found

    def drop_after(self, frames: int) -> None:
        """Delete the states of a future that will be another."""
        for folder in self.all():
            if int(folder.name[:10]) > frames:
                shutil.rmtree(folder)

    def sweep(self) -> None:
        """Delete what processes that were killed had half written."""
        for folder in self._folder.glob("*.partial"):
            shutil.rmtree(folder)

    def forget(self) -> None:
        """Write all of replay at the next time: rows that are on disk were changed."""
        self._written = None

    def load(self, found: Found, agent: Agent, state: AgentState, rest: Any = None) -> tuple[AgentState, Any]:
        """A run's state from disk.

        Args:
            found: What `newest` gave.
            agent: The agent; with a frame store, the one within it.
            state: Its fresh state, which is consumed.
            rest: Like the `rest` that was saved.

        Raises:
            ValueError: If it holds another architecture.
        """
        like, names = _flat(_without_rows(state), rest)
        there = found.facts["leaves"]
        for ours, theirs in zip(names, there, strict=False):
            if ours != theirs:
                raise ValueError(
                    f"{found.folder} holds {theirs} where this run has {ours}: it is of another architecture"
                )
        if len(names) != len(there):
            raise ValueError(f"{found.folder} holds {len(there)} arrays and this run has {len(names)}")
        leaves = load_arrays(found.folder / "arrays", like)
        loaded, rest = _unflat(leaves, _without_rows(state), rest)
        if found.facts["replay"]:
            files = [found.folder / name for name in sorted(found.facts["files"]) if name.startswith("replay/")]
            cursor, size = found.facts["cursor"], found.facts["size"]
            state = read_replay(files, agent, state, cursor=cursor, size=size)
            num_envs = state.replay.rows.action.shape[1]
            self._written = _written(found.folder, found.facts["cursor"], found.facts["frames"] // num_envs)
        return loaded._replace(replay=state.replay), rest


def read_envs(found: Found) -> Snapshot | None:
    """Gymnasium environments of a state; None where they could not be saved."""
    path = found.folder / "envs.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def _written(folder: Path, cursor: int, rows: int) -> Written:
    files = read_manifest(folder)["files"]
    digests = {Path(name).name: entry["sha256"] for name, entry in files.items() if name.startswith("replay/")}
    return Written(folder / "replay", cursor, rows, digests)


def _without_rows(state: AgentState) -> AgentState:
    return state._replace(replay=None)  # type: ignore[arg-type]  # which has files of its own


def _flat(state: AgentState, rest: Any) -> tuple[dict[str, Any], list[str]]:
    """Arrays by number, and what each is; keys as the numbers that they are made of."""
    found = jax.tree_util.tree_leaves_with_path((state, rest))
    arrays = [jax.random.key_data(leaf) if is_key(leaf) else leaf for _, leaf in found]
    names = [
        f"{jax.tree_util.keystr(path)[3:]} {array.dtype}{list(array.shape)}"
        for (path, _), array in zip(found, arrays, strict=True)
    ]
    return {f"{index:04d}": np.asarray(array) for index, array in enumerate(arrays)}, names


def _unflat(leaves: dict[str, Any], state: AgentState, rest: Any) -> tuple[AgentState, Any]:
    old, structure = jax.tree.flatten((state, rest))
    arrays = [jnp.array(leaves[f"{index:04d}"]) for index in range(len(old))]
    new = [jax.random.wrap_key_data(new) if is_key(old) else new for old, new in zip(old, arrays, strict=True)]
    loaded, rest = jax.tree.unflatten(structure, new)
    return loaded, rest
