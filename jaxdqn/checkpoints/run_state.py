"""The whole state of a run on disk, from which it goes on as if it had never stopped.

    states/00012000/manifest.json    format, config, versions, what the logs had got to, a SHA-256 of every file
    states/00012000/arrays/          by orbax: learner, actor, keys
    states/00012000/rest.npz         functional environments
    states/00012000/envs.npz         gymnasium environments, where they can be saved
    states/00012000/replay/          the ring's rows
    states/00012000/process-1/       the environments and rows of a second process, where there is one

No file is a pickle: to read one runs no code of whoever wrote it.
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

from jaxdqn.agent import Agent, AgentState
from jaxdqn.checkpoints.reuse import EarlierReplay, WrittenReplay
from jaxdqn.checkpoints.shards import (
    SavedState,
    check_manifest,
    check_same_arrays,
    flatten,
    part_of_state,
    read_rest,
    read_rows,
    unflatten,
    write_part,
    written_files_in,
)
from jaxdqn.distributed.processes import ProcessGroup
from jaxdqn.envs.vector.snapshots import Snapshot
from jaxdqn.storage.atomic import wait_until_visible, with_path_in_oserror
from jaxdqn.storage.manifest import DamagedError, digest_of, partial_path, read_manifest, seal, sealed_folder, verified
from jaxdqn.storage.pytrees import load_arrays, save_arrays

FORMAT = 2
"""Of what is written here; another one is refused."""


class States:
    """The states that a run keeps: the newest few.

    Where a run has several processes, all of them must call `save` and `load` together; each writes and reads its part.
    """

    def __init__(self, folder: Path, *, keep: int, with_replay: bool, group: ProcessGroup | None = None) -> None:
        """Look at a folder, which need not exist yet.

        Args:
            folder: `states` of a run.
            keep: How many to keep.
            with_replay: Whether replay is kept in them.
            group: The processes of the run; None where this is the only one.
        """
        self._group = group or ProcessGroup.alone()
        self._folder = folder
        self._keep = keep
        self._with_replay = with_replay
        self._written: dict[str, WrittenReplay] = {}  # the rows of states that were found whole, oldest first

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
            ProcessError: If it cannot be on another process.
        """
        group, ring = self._group, state.replay
        leaves, names = flatten(_without_rows(state))
        rest_leaves, rest_names = flatten(rest)
        rows = frames // (ring.rows.action.shape[1] * group.count)
        about = {
            "format": FORMAT,
            "frames": frames,
            "processes": group.count,
            "leaves": names,
            "rest": rest_names,
            "cursor": int(ring.cursor),
            "size": int(ring.size),
            "replay": self._with_replay,
            **facts,
        }
        part = {"ring": ring if self._with_replay else None, "rows": rows, "read_obs": read_obs, "envs": envs}
        name, expiring = group.broadcast_from_first(lambda: self._begin(frames))
        target = self._folder / name
        # Files of a state that is deleted next are taken over.
        taken_over = next((self._written[old] for old in reversed(expiring) if old in self._written), None)
        newest = next(reversed(self._written.values()), None)
        earlier = None if newest is None else EarlierReplay(newest, taken_over)
        part |= {"earlier": earlier, "rest": rest_leaves or None}
        partial = partial_path(target)
        try:
            with group.exchange() as exchange, with_path_in_oserror(target):
                if group.is_first:
                    save_arrays(partial / "arrays", leaves)
                    known = write_part(partial, **part)
                else:
                    known = {}
                    with sealed_folder(part_of_state(partial, group.index), {}, known) as own:
                        known |= write_part(own, **part)
                    exchange.local = digest_of(part_of_state(partial, group.index))
            with group.exchange(), with_path_in_oserror(target):
                if group.is_first:
                    _wait_for_parts(partial, exchange.gathered)
                    seal(partial, target, about, known)
        finally:
            if group.is_first:
                shutil.rmtree(partial, ignore_errors=True)
        with group.exchange():
            own, times = part_of_state(target, group.index), 0 if taken_over is None else taken_over.times + 1
            if self._with_replay and wait_until_visible(own.is_dir):
                self._written[name] = written_files_in(own, about["cursor"], rows, times)
            for old in expiring:
                self._written.pop(old, None)
                if group.is_first:
                    shutil.rmtree(self._folder / old, ignore_errors=True)  # or when the next one is written
        return target

    def _begin(self, frames: int) -> tuple[str, list[str]]:
        """Make the folder of a new state, and name it, and the states that are deleted when it is whole."""
        self.sweep()
        taken = [path.name for path in self.all()]
        # The same moment again, with an evaluation that was due: nothing is replaced, so that one is there at any time.
        again = [int(name[11:] or 0) + 1 for name in taken if int(name[:10]) == frames]
        name = f"{frames:010d}" + (f"-{max(again)}" if again else "")
        partial_path(self._folder / name).mkdir(parents=True)
        return name, taken[: max(len(taken) + 1 - self._keep, 0)]

    def all(self) -> list[Path]:
        """Folders of the states that are there, oldest first."""
        saved = self._folder.iterdir() if self._folder.is_dir() else ()
        states = [path for path in saved if path.is_dir() and re.fullmatch(r"\d{10}(-\d+)?", path.name)]
        return sorted(states, key=lambda path: [int(part) for part in path.name.split("-")])

    def newest(self) -> SavedState | None:
        """The newest state that is what was written; None where there is none at all.

        Raises:
            ValueError: If none of those that are there can be used.
        """
        notes: list[str] = []
        for folder in reversed(self.all()):
            try:
                facts = read_manifest(folder)
                if facts.get("format") != FORMAT:
                    wrote = facts.get("versions", {}).get("jaxdqn", "unknown")
                    raise ValueError(
                        f"{folder} has format {facts.get('format')} and this jaxdqn reads {FORMAT}: "
                        f"resume with the jaxdqn that wrote it ({wrote})"
                    )
                check_manifest(folder, facts)
                missing_processes: list[str] = []
                return SavedState(folder, verified(folder, missing_processes), notes, missing_processes)
            except DamagedError as error:
                notes.append(str(error))
        if notes:
            raise ValueError(f"no state of {self._folder.parent} can be used: {'; '.join(notes)}")
        return None

    def agents(self) -> set[int]:
        """Frames of the agents that the states name as the last one and the best one."""
        saved: set[int] = set()
        for folder in self.all():
            with contextlib.suppress(DamagedError):
                index = read_manifest(folder)["index"]
                saved |= {index[name] for name in ("last", "best") if name in index}
        return saved

    def drop_after(self, frames: int) -> None:
        """Delete the states of a future that will be another."""
        for folder in self.all():
            if int(folder.name[:10]) > frames:
                shutil.rmtree(folder)

    def sweep(self) -> None:
        """Delete what processes that were killed had half written."""
        for folder in self._folder.glob("*.partial"):
            shutil.rmtree(folder, ignore_errors=True)

    def forget(self) -> None:
        """Write all of replay at the next time: rows that are on disk were changed."""
        self._written.clear()

    def load(self, saved: SavedState, agent: Agent, state: AgentState, rest: Any = None) -> tuple[AgentState, Any]:
        """A run's state from disk.

        Args:
            saved: What `newest` gave.
            agent: The agent; with a frame store, the one within it.
            state: Its fresh state, which is consumed.
            rest: Like the `rest` that was saved; given back as it is where as many processes are not there now.

        Raises:
            ValueError: If it holds another architecture.
        """
        group = self._group
        like, names = flatten(_without_rows(state))
        check_same_arrays(saved, names, saved.facts["leaves"])
        (loaded,) = unflatten(load_arrays(saved.folder / "arrays", like), _without_rows(state))
        if saved.is_of(group.count):
            check_same_arrays(saved, flatten(rest)[1], saved.facts["rest"])
            if rest is not None:
                (rest,) = unflatten(read_rest(saved.part(group.index), flatten(rest)[0]), rest)
        if saved.has_replay:
            state = read_rows(saved, agent, state, group.index, group.count)
            rows = saved.facts["frames"] // (state.replay.rows.action.shape[1] * group.count)
            if saved.is_of(group.count):
                self._written[saved.folder.name] = written_files_in(
                    saved.part(group.index), saved.facts["cursor"], rows
                )
        return loaded._replace(replay=state.replay), rest


def _wait_for_parts(partial: Path, digests: list[str | None]) -> None:
    """Raise `OSError` unless this process sees what the others have written into a state."""
    for index, digest in enumerate(digests[1:], 1):
        folder = part_of_state(partial, index)
        if not wait_until_visible(lambda: digest_of(folder) == digest):  # noqa: B023, it is called at once
            raise OSError(errno.EIO, "what another process has written is not seen", str(folder))


def _without_rows(state: AgentState) -> AgentState:
    return state._replace(replay=None)  # type: ignore[arg-type]  # which has files of its own
