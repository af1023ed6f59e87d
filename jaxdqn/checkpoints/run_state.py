"""The complete state of a run on disk. A resumed run continues as if it had never stopped.

    states/0000012000/checksums.json    format, config, versions, progress of the logs, the SHA-256 of every file
    states/0000012000/arrays/          written by orbax: learner, actor, keys
    states/0000012000/rest.npz         functional environments
    states/0000012000/envs.npz         gymnasium environments, if they can be saved
    states/0000012000/replay/          the ring's rows
    states/0000012000/process-1/       environments and rows of a second process, if there is one

No file is a pickle: reading a state runs no code from it.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxdqn.agent.agent import Agent, AgentState
from jaxdqn.checkpoints import run_manifest
from jaxdqn.checkpoints.process_parts import (
    SavedState,
    check_same_arrays,
    flatten,
    part_of_state,
    read_rest,
    read_rows,
    unflatten,
    write_part,
    written_files_in,
)
from jaxdqn.checkpoints.replay_reuse import EarlierReplay, WrittenReplay
from jaxdqn.checkpoints.run_manifest import RunManifest, RunRecord
from jaxdqn.distributed.process_group import ProcessGroup
from jaxdqn.envs.vector.snapshots import Snapshot
from jaxdqn.storage import checksums
from jaxdqn.storage.atomic import wait_until_visible, with_path_in_oserror
from jaxdqn.storage.pytrees import load_arrays, save_arrays


class States:
    """The states that a run keeps: the newest `keep`.

    If a run has several processes, all of them must call `save` and `load` together. Each writes and reads its part.
    """

    def __init__(self, folder: Path, *, keep: int, with_replay: bool, group: ProcessGroup | None = None) -> None:
        """Open a folder, which need not exist yet.

        Args:
            folder: The folder `states` of a run.
            keep: Number of states to keep.
            with_replay: Whether to save replay in them.
            group: The processes of the run; None if this is the only one.
        """
        self._group = group or ProcessGroup.alone()
        self._folder = folder
        self._keep = keep
        self._with_replay = with_replay
        self._written: dict[str, WrittenReplay] = {}  # replay of the states known to be intact, oldest first

    def save(
        self,
        frames: int,
        state: AgentState,
        record: RunRecord,
        *,
        rest: Any = None,
        envs: Snapshot | None = None,
        read_obs: Callable[[Any], np.ndarray] | None = None,
    ) -> Path:
        """Write a state, delete all but the newest `keep` states, and return the folder of the new one.

        Args:
            frames: Rows collected so far; the state is named after this number.
            state: The agent's state; not modified.
            record: What the trainer adds to the manifest.
            rest: Arrays of functional environments, or None.
            envs: State of gymnasium environments, or None.
            read_obs: See `write_replay`.

        Raises:
            OSError: If it cannot be written. No part of it is left then, and the other states are unchanged.
            ProcessError: If another process cannot write its part.
        """
        group, ring = self._group, state.replay
        leaves, names = flatten(_without_rows(state))
        rest_leaves, rest_names = flatten(rest)
        rows = frames // (ring.rows.action.shape[1] * group.count)
        fields = RunManifest(
            frames=frames,
            processes=group.count,
            cursor=int(ring.cursor),
            size=int(ring.size),
            replay=self._with_replay,
            leaves=names,
            rest=rest_names,
            record=record,
        )
        part = {"ring": ring if self._with_replay else None, "rows": rows, "read_obs": read_obs, "envs": envs}
        name, expiring = group.broadcast_from_first(lambda: self._begin(frames))
        target = self._folder / name
        # Files of a state that is deleted below can be linked.
        linkable = next((self._written[old] for old in reversed(expiring) if old in self._written), None)
        newest = next(reversed(self._written.values()), None)
        earlier = None if newest is None else EarlierReplay(newest, linkable)
        part |= {"earlier": earlier, "rest": rest_leaves or None}
        partial = checksums.partial_path(target)
        try:
            with group.exchange() as exchange, with_path_in_oserror(target):
                if group.is_first:
                    save_arrays(partial / "arrays", leaves)
                    known = write_part(partial, **part)
                else:
                    known = {}
                    with checksums.sealed_folder(part_of_state(partial, group.index), {}, known) as own:
                        known |= write_part(own, **part)
                    exchange.local = checksums.digest_of(part_of_state(partial, group.index))
            with group.exchange(), with_path_in_oserror(target):
                if group.is_first:
                    _wait_for_parts(partial, exchange.gathered)
                    checksums.seal(partial, target, fields.to_dict(), known)
        finally:
            if group.is_first:
                shutil.rmtree(partial, ignore_errors=True)
        with group.exchange():
            own, times = part_of_state(target, group.index), 0 if linkable is None else linkable.times_linked + 1
            if self._with_replay and wait_until_visible(own.is_dir):
                self._written[name] = written_files_in(own, fields.cursor, rows, times)
            for old in expiring:
                self._written.pop(old, None)
                if group.is_first:
                    shutil.rmtree(self._folder / old, ignore_errors=True)  # if this fails, the next save deletes it
        return target

    def _begin(self, frames: int) -> tuple[str, list[str]]:
        """Make the folder of a new state. Return its name, and the states to delete once it is complete."""
        self.delete_partial()
        taken = [path.name for path in self.all()]
        # A second state of the same frame (after an evaluation) gets a suffix: a complete state exists at all times.
        suffixes = [int(name[11:] or 0) + 1 for name in taken if int(name[:10]) == frames]
        name = f"{frames:010d}" + (f"-{max(suffixes)}" if suffixes else "")
        checksums.partial_path(self._folder / name).mkdir(parents=True)
        return name, taken[: max(len(taken) + 1 - self._keep, 0)]

    def all(self) -> list[Path]:
        """Return the folders of all states, oldest first."""
        saved = self._folder.iterdir() if self._folder.is_dir() else ()
        states = [path for path in saved if path.is_dir() and re.fullmatch(r"\d{10}(-\d+)?", path.name)]
        return sorted(states, key=lambda path: [int(part) for part in path.name.split("-")])

    def newest(self) -> SavedState | None:
        """Return the newest state that is intact; None if there are no states.

        Raises:
            ValueError: If there are states and none of them can be used.
        """
        notes: list[str] = []
        for folder in reversed(self.all()):
            try:
                fields = checksums.read_manifest(folder)
                if fields.get("format") != run_manifest.FORMAT:
                    version = fields.get("versions", {}).get("jaxdqn", "unknown")
                    raise ValueError(
                        f"{folder} has format {fields.get('format')} and this jaxdqn reads {run_manifest.FORMAT}: "
                        f"resume with the jaxdqn that wrote it ({version})"
                    )
                saved, missing_processes = RunManifest.from_dict(folder, fields), list[str]()
                checksums.check_folder(folder, missing_processes)
                return SavedState(folder, saved, notes, missing_processes)
            except checksums.DamagedError as error:
                notes.append(str(error))
        if notes:
            raise ValueError(f"no state of {self._folder.parent} can be used: {'; '.join(notes)}")
        return None

    def agents(self) -> set[int]:
        """Return the frames of the last and best agents that the states refer to."""
        saved: set[int] = set()
        for folder in self.all():
            with contextlib.suppress(checksums.DamagedError):
                index = checksums.read_manifest(folder)["index"]
                saved |= {index[name] for name in ("last", "best") if name in index}
        return saved

    def delete_after(self, frames: int) -> None:
        """Delete the states of later frames than `frames`."""
        for folder in self.all():
            if int(folder.name[:10]) > frames:
                shutil.rmtree(folder)

    def delete_partial(self) -> None:
        """Delete incomplete states that killed processes left behind."""
        for folder in self._folder.glob("*.partial"):
            shutil.rmtree(folder, ignore_errors=True)

    def forget_written_replay(self) -> None:
        """Write all of replay in the next state: rows that were already written have changed in memory."""
        self._written.clear()

    def load(self, saved: SavedState, agent: Agent, state: AgentState, rest: Any = None) -> tuple[AgentState, Any]:
        """Load a run's state from disk: the agent's, and `rest`.

        Args:
            saved: What `newest` returned.
            agent: The agent; if it is wrapped in a frame store, the wrapped one.
            state: Its initial state, which is consumed.
            rest: Arrays of the same structure as the saved `rest`; returned unchanged if the number of processes
                differs from that of the saved run.

        Raises:
            ValueError: If the saved arrays are of another architecture.
        """
        group = self._group
        like, names = flatten(_without_rows(state))
        check_same_arrays(saved, names, saved.manifest.leaves)
        (loaded,) = unflatten(load_arrays(saved.folder / "arrays", like), _without_rows(state))
        if saved.is_complete_for(group.count):
            check_same_arrays(saved, flatten(rest)[1], saved.manifest.rest)
            if rest is not None:
                (rest,) = unflatten(read_rest(saved.part(group.index), flatten(rest)[0]), rest)
        if saved.has_replay:
            state = read_rows(saved, agent, state, group.index, group.count)
            rows = saved.manifest.frames // (state.replay.rows.action.shape[1] * group.count)
            if saved.is_complete_for(group.count):
                self._written[saved.folder.name] = written_files_in(
                    saved.part(group.index), saved.manifest.cursor, rows
                )
        return loaded._replace(replay=state.replay), rest


def _wait_for_parts(partial: Path, digests: list[str | None]) -> None:
    """Raise `OSError` unless this process sees the parts that the other processes wrote."""
    for index, digest in enumerate(digests[1:], 1):
        folder = part_of_state(partial, index)
        if not wait_until_visible(lambda: checksums.digest_of(folder) == digest):  # noqa: B023, called immediately
            raise OSError(errno.EIO, "files that another process wrote are not visible here", str(folder))


def _without_rows(state: AgentState) -> AgentState:
    return state._replace(replay=None)  # type: ignore[arg-type]  # rows are in files of their own
