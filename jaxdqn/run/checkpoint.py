"""Agents on disk: parameters by orbax, and what is needed to act with them as JSON beside.

    checkpoints/00012000/params/    orbax
    checkpoints/00012000/agent.json num_actions, obs_shape, obs_dtype, statistics, frames
    checkpoints/index.json          {"last": 24000, "best": 12000, ...}

`index.json` is replaced in one step after a checkpoint is whole, so that it never names half of one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxdqn.learner import Params
from jaxdqn.preprocessing import ObservationStats

Which = Literal["best", "last"]


class AgentSpec(NamedTuple):
    """What an environment told the agent: enough, with the config, to build it again.

    Attributes:
        num_actions: Number of discrete actions.
        obs_shape: Shape of one observation.
        obs_dtype: Name of its dtype.
        obs_stats: Statistics by which observations are normalised; None for none.
    """

    num_actions: int
    obs_shape: tuple[int, ...]
    obs_dtype: str
    obs_stats: ObservationStats | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        stats = None if self.obs_stats is None else {k: v.tolist() for k, v in self.obs_stats._asdict().items()}
        return {**self._asdict(), "obs_shape": list(self.obs_shape), "obs_stats": stats}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> AgentSpec:
        """The inverse of `to_dict`."""
        stats = fields["obs_stats"]
        if stats is not None:
            stats = ObservationStats(**{name: np.asarray(values, np.float32) for name, values in stats.items()})
        return cls(fields["num_actions"], tuple(fields["obs_shape"]), fields["obs_dtype"], stats)


class Checkpoints:
    """The agents that a run keeps: the last and the best."""

    def __init__(self, folder: Path) -> None:
        """Look at a folder, which need not exist yet."""
        self._folder = folder.absolute()
        self._index_file = self._folder / "index.json"

    def index(self) -> dict[str, Any]:
        """Which checkpoints there are: `last`, `best` (frames) and `best_mean`; empty before the first."""
        if not self._index_file.is_file():
            return {}
        index: dict[str, Any] = json.loads(self._index_file.read_text())
        return index

    def save(self, params: Params, spec: AgentSpec, *, frames: int, best_mean: float | None = None) -> None:
        """Keep an agent as the last one, and as the best one where `best_mean` is given.

        Args:
            params: Online parameters.
            spec: What the environment told the agent.
            frames: Frames it has trained for.
            best_mean: Mean return of the evaluation that makes it the best so far.
        """
        index = self.index()
        index["last"] = frames
        if best_mean is not None:
            index.update(best=frames, best_mean=best_mean)
        target = self._folder / f"{frames:08d}"
        if not target.exists():
            aside = target.with_suffix(".partial")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(aside / "params", jax.tree.map(np.asarray, params))
            (aside / "agent.json").write_text(json.dumps({**spec.to_dict(), "frames": frames}, indent=2) + "\n")
            aside.rename(target)
        write_aside(self._index_file, json.dumps(index, indent=2) + "\n")
        kept = {f"{index[name]:08d}" for name in ("last", "best") if name in index}
        for folder in self._folder.iterdir():
            if folder.is_dir() and folder.name not in kept:
                shutil.rmtree(folder)

    def spec(self, which: Which) -> AgentSpec:
        """What the environment told the agent; raises `ValueError` where there is no such checkpoint."""
        return AgentSpec.from_dict(json.loads((self._chosen(which) / "agent.json").read_text()))

    def params(self, which: Which, like: Params) -> Params:
        """Parameters of a checkpoint.

        Args:
            which: `"best"` or `"last"`.
            like: Parameters of the same shapes, from `agent.init`.

        Raises:
            ValueError: If there is no such checkpoint, or it holds another network's parameters.
        """
        folder = self._chosen(which) / "params"
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.metadata(folder).item_metadata
            wanted = jax.tree.map(lambda leaf: tuple(leaf.shape), like)
            found = jax.tree.map(lambda leaf: tuple(leaf.shape), getattr(stored, "tree", stored))
            if wanted != found:
                raise ValueError(f"checkpoint {folder.parent} holds another network: pass the network it was made with")
            params: Params = checkpointer.restore(folder, like)
        return params

    def _chosen(self, which: Which) -> Path:
        index = self.index()
        if which not in index:
            kept = ", ".join(name for name in ("best", "last") if name in index) or "none yet"
            raise ValueError(f"no {which} checkpoint in {self._folder} (there is: {kept})")
        return self._folder / f"{index[which]:08d}"


def write_aside(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".partial")
    aside.write_text(text)
    aside.replace(path)
