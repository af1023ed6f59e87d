"""Agents on disk: the parameters, written by orbax, and a JSON file with what else is needed to act with them.

    checkpoints/00012000/params/       orbax
    checkpoints/00012000/agent.json    num_actions, obs_shape, obs_dtype, frame_stack, scale, frames
    checkpoints/00012000/manifest.json the SHA-256 of each file
    checkpoints/index.json             {"last": 24000, "best": 12000, ...}

`index.json` is replaced atomically after a checkpoint is complete, so it never names an incomplete one.
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
from jaxdqn.storage.checksums import DamagedError, check_folder, sealed_folder
from jaxdqn.storage.pytrees import load_arrays, save_arrays, shapes_of

Which = Literal["best", "last"]


class AgentSpec(NamedTuple):
    """What the agent knows of its environment. Together with the config, this is enough to build the agent again.

    Attributes:
        num_actions: Number of discrete actions.
        obs: Shape and dtype of the observations.
        custom: Which of `env_fn` and `network` were the user's own, and must be passed again to load the agent.
    """

    num_actions: int
    obs: ObsSpec
    custom: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as a dictionary that can be written as JSON."""
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
        """Return the spec of a dictionary that `to_dict` made.

        Args:
            fields: The dictionary. Versions that knew one kind of image only wrote no stack and scale: the values that
                they used are filled in.
            config: Config of the run that trained the agent.

        Raises:
            ValueError: If a field is missing or has an invalid value.
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
        """Open a folder, which need not exist yet."""
        self._folder = folder.absolute()
        self._index_file = self._folder / "index.json"

    def index(self) -> dict[str, Any]:
        """Return the index: `last`, `best` (frames), `best_mean` and `best_returns`; empty before the first checkpoint.

        `best_mean` is the maximum of many means: it says which agent was chosen, and overestimates how good it is.
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
        """Save an agent as the last one, and also as the best one if `best_returns` is given.

        Args:
            params: Parameters of the greedy agent.
            spec: What the agent knows of its environment.
            frames: Frames it has trained for.
            best_returns: Returns of the evaluation that makes it the best so far.
            protected_frames: Frames of other agents that must not be deleted.
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
        self._write_index(index, protected_frames)

    def restore_index(self, index: dict[str, Any], protected_frames: Set[int] = frozenset()) -> list[str]:
        """Set the index back to an earlier one, without agents that are damaged by now, and delete later agents.

        Args:
            index: What `index` returned at that time.
            protected_frames: Frames of other agents that must not be deleted.

        Returns:
            One note for each agent that is lost.
        """
        intact: dict[str, Any] = {}
        notes = []
        for name in [name for name in ("last", "best") if name in index]:
            try:
                check_folder(self._folder / f"{index[name]:08d}")
                intact[name] = index[name]
            except DamagedError as error:
                notes.append(f"the {name} agent is lost: {error}")
        if "best" in intact:
            intact |= {name: index[name] for name in ("best_mean", "best_returns") if name in index}
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write_index(intact, protected_frames)
        return notes

    def _write_index(self, index: dict[str, Any], protected_frames: Set[int]) -> None:
        write_json(self._index_file, index)
        kept = {
            f"{frames:08d}" for frames in {index[name] for name in ("last", "best") if name in index} | protected_frames
        }
        for folder in self._folder.iterdir():
            is_ours = re.fullmatch(r"\d{8,}(\.partial)?", folder.name) and folder.is_dir() and not folder.is_symlink()
            if is_ours and folder.name not in kept:
                shutil.rmtree(folder)

    def spec(self, which: Which, config: Config) -> AgentSpec:
        """Return what the agent knows of its environment. Raise `ValueError` if there is no such checkpoint."""
        return AgentSpec.from_dict(read_json(self._folder_of(which) / "agent.json"), config)

    def params(self, which: Which, like: Params) -> Params:
        """Return the parameters of a checkpoint.

        Args:
            which: `"best"` or `"last"`.
            like: Parameters of the same shapes, from `agent.init`.

        Raises:
            ValueError: If there is no such checkpoint, or it holds another network's parameters.
        """
        folder = self._folder_of(which) / "params"
        if shapes_of(folder) != jax.tree.map(lambda leaf: tuple(leaf.shape), like):
            raise ValueError(f"checkpoint {folder.parent} is of another network: pass the network it was saved with")
        params: Params = load_arrays(folder, like)
        return params

    def _folder_of(self, which: Which) -> Path:
        index = self.index()
        if which not in index:
            kept = ", ".join(name for name in ("best", "last") if name in index)
            available = f"available: {kept}" if kept else "there is none yet: a run saves one at each evaluation"
            raise ValueError(f"no {which} checkpoint in {self._folder} ({available})")
        folder = self._folder / f"{index[which]:08d}" if isinstance(index[which], int) else None
        if folder is None or not folder.is_dir():
            raise ValueError(f"{self._index_file} names a {which} checkpoint that does not exist: {index[which]!r}")
        check_folder(folder)
        return folder
