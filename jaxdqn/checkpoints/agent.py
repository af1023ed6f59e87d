"""Agents on disk: parameters by orbax, and what is needed to act with them as JSON beside.

    checkpoints/00012000/params/       orbax
    checkpoints/00012000/agent.json    num_actions, obs_shape, obs_dtype, frame_stack, scale, frames
    checkpoints/00012000/manifest.json a SHA-256 of each file
    checkpoints/index.json             {"last": 24000, "best": 12000, ...}

`index.json` is replaced in one step after a checkpoint is whole, so that it never names half of one.
"""

from __future__ import annotations

import re
import shutil
import statistics
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxdqn.config import Config
from jaxdqn.learner import Params
from jaxdqn.observations import ObsSpec
from jaxdqn.storage.atomic import read_json, write_json
from jaxdqn.storage.manifest import DamagedError, sealed_folder, verified
from jaxdqn.storage.pytrees import load_arrays, save_arrays, shapes_of

Which = Literal["best", "last"]


class AgentSpec(NamedTuple):
    """What an environment told the agent: enough, with the config, to build it again.

    Attributes:
        num_actions: Number of discrete actions.
        obs: What is observed.
        custom: What of `env_fn` and `network` was the user's own, and must be given again to load the agent.
    """

    num_actions: int
    obs: ObsSpec
    custom: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        obs = self.obs
        return {
            "num_actions": self.num_actions,
            "obs_shape": obs.shape,
            "obs_dtype": np.dtype(obs.dtype).name,
            "frame_stack": obs.stack,
            "scale": obs.scale,
            "custom": self.custom,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any], config: Config) -> AgentSpec:
        """The inverse of `to_dict`.

        Args:
            fields: What it gave. One that was written before images of all kinds were known says nothing of stack and
                scale: they are those of its time.
            config: The run that trained the agent.

        Raises:
            ValueError: If a field is missing or is none.
        """
        try:
            older = "scale" not in fields
            stack = (config.frame_stack if config.pixels else None) if older else fields["frame_stack"]
            scale = (255.0 if config.pixels else 1.0) if older else float(fields["scale"])
            obs = ObsSpec(tuple(fields["obs_shape"]), np.dtype(fields["obs_dtype"]), stack, scale)
            if not all(type(size) is int and size >= 0 for size in obs.shape) or int(fields["num_actions"]) < 1:
                raise ValueError(f"shape {obs.shape} and {fields['num_actions']} actions")
            return cls(int(fields["num_actions"]), obs, tuple(fields["custom"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the checkpoint's agent.json is damaged: {error!r}") from error


class Checkpoints:
    """The agents that a run keeps: the last and the best."""

    def __init__(self, folder: Path) -> None:
        """Look at a folder, which need not exist yet."""
        self._folder = folder.absolute()
        self._index_file = self._folder / "index.json"

    def index(self) -> dict[str, Any]:
        """Which checkpoints there are: `last`, `best` (frames), `best_mean` and `best_returns`; empty before the first.

        The mean is the highest of many: it says which agent was chosen, and too much of how good it is.
        """
        return read_json(self._index_file) if self._index_file.is_file() else {}

    def save(
        self,
        params: Params,
        spec: AgentSpec,
        *,
        frames: int,
        best_returns: Sequence[float] | None = None,
        protected_frames: Set[int] = frozenset(),
    ) -> None:
        """Keep an agent as the last one, and as the best one where `best_returns` are given.

        Args:
            params: Parameters of the greedy agent.
            spec: What the environment told the agent.
            frames: Frames it has trained for.
            best_returns: Returns of the evaluation that makes it the best so far.
            protected_frames: Frames of agents that are to be kept besides.
        """
        index = self.index()
        index["last"] = frames
        if best_returns is not None:
            returns = [float(each) for each in best_returns]
            index.update(best=frames, best_mean=statistics.fmean(returns), best_returns=returns)
        target = self._folder / f"{frames:08d}"
        if not target.exists():
            with sealed_folder(target, {"frames": frames}) as partial:
                save_arrays(partial / "params", params)
                write_json(partial / "agent.json", {**spec.to_dict(), "frames": frames})
        self._set_index(index, protected_frames)

    def restore_index(self, index: dict[str, Any], protected_frames: Set[int] = frozenset()) -> list[str]:
        """Name the agents of an earlier moment, as far as they are whole, and delete later ones.

        Args:
            index: What `index` gave then.
            protected_frames: Frames of agents that are to be kept besides.

        Returns:
            What is not as it was then.
        """
        there: dict[str, Any] = {}
        notes = []
        for name in [name for name in ("last", "best") if name in index]:
            try:
                verified(self._folder / f"{index[name]:08d}")
                there[name] = index[name]
            except DamagedError as error:
                notes.append(f"the {name} agent is lost: {error}")
        if "best" in there:
            there |= {name: index[name] for name in ("best_mean", "best_returns") if name in index}
        self._folder.mkdir(parents=True, exist_ok=True)
        self._set_index(there, protected_frames)
        return notes

    def _set_index(self, index: dict[str, Any], protected_frames: Set[int]) -> None:
        write_json(self._index_file, index)
        kept = {
            f"{frames:08d}" for frames in {index[name] for name in ("last", "best") if name in index} | protected_frames
        }
        for folder in self._folder.iterdir():
            ours = re.fullmatch(r"\d{8,}(\.partial)?", folder.name) and folder.is_dir() and not folder.is_symlink()
            if ours and folder.name not in kept:
                shutil.rmtree(folder)

    def spec(self, which: Which, config: Config) -> AgentSpec:
        """What the environment told the agent; raises `ValueError` where there is no such checkpoint."""
        return AgentSpec.from_dict(read_json(self._chosen(which) / "agent.json"), config)

    def params(self, which: Which, like: Params) -> Params:
        """Parameters of a checkpoint.

        Args:
            which: `"best"` or `"last"`.
            like: Parameters of the same shapes, from `agent.init`.

        Raises:
            ValueError: If there is no such checkpoint, or it holds another network's parameters.
        """
        folder = self._chosen(which) / "params"
        if shapes_of(folder) != jax.tree.map(lambda leaf: tuple(leaf.shape), like):
            raise ValueError(f"checkpoint {folder.parent} holds another network: pass the network it was made with")
        params: Params = load_arrays(folder, like)
        return params

    def _chosen(self, which: Which) -> Path:
        index = self.index()
        if which not in index:
            kept = ", ".join(name for name in ("best", "last") if name in index)
            there = f"there is: {kept}" if kept else "there is none yet: a run keeps one at each evaluation"
            raise ValueError(f"no {which} checkpoint in {self._folder} ({there})")
        folder = self._folder / f"{index[which]:08d}" if isinstance(index[which], int) else None
        if folder is None or not folder.is_dir():
            raise ValueError(f"{self._index_file} names a {which} checkpoint that is not there: {index[which]!r}")
        verified(folder)
        return folder
