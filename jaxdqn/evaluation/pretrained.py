"""Agents that the package contains: `cartpole`, which balances the pole from pixels, and `ball`, which catches a ball.

Each is two files in `jaxdqn/pretrained`:

    NAME.json    config, agent (see `AgentSpec.to_dict`), command, date, frames, figures, versions, sha256
    NAME.npz     the parameters: an array for each path, such as params/Conv_0/kernel

`experiments/pretrained_agents.py` makes them.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdqn.checkpoints.agent_files import AgentSpec
from jaxdqn.checkpoints.compatibility import config_of_file
from jaxdqn.evaluation.loading import greedy_function
from jaxdqn.evaluation.trained_agent import TrainedAgent
from jaxdqn.pretrained import FOLDER, PRETRAINED
from jaxdqn.storage.atomic import atomic_write, read_json, write_json


def load_pretrained(name: str, *, env: str | None = None) -> TrainedAgent:
    """Return one of the agents that the package contains.

    Args:
        name: `"cartpole"` or `"ball"`.
        env: Gymnasium id to play on, with the same actions and observations; None: the one it was trained on.

    Raises:
        ValueError: If there is no such agent, or its files are not those that were installed.
    """
    if name not in PRETRAINED:
        near = difflib.get_close_matches(str(name), PRETRAINED, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(PRETRAINED)}"
        raise ValueError(f"unknown pretrained agent {name!r}: {hint}")
    return read_agent(FOLDER, name, env=env)


def read_agent(folder: Path, name: str, *, env: str | None = None) -> TrainedAgent:
    """Return the agent of two files. See `load_pretrained` for the errors."""
    path = folder / f"{name}.npz"
    try:
        facts = read_json(folder / f"{name}.json")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            raise ValueError(f"the SHA-256 of {path} is not the one in {name}.json")
        config = config_of_file(facts["config"])
        spec = AgentSpec.from_dict(facts["agent"], config)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            params = unflatten_dict({tuple(key.split("/")): jnp.asarray(arrays[key]) for key in arrays.files})
        q_values, like = greedy_function(config, spec)
        if jax.tree.map(_size_of, params) != jax.tree.map(_size_of, like):
            raise ValueError(f"{path} holds the parameters of another network")
    except (OSError, KeyError, TypeError, AttributeError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"the pretrained agent {name!r} is damaged: install jaxdqn again ({error})") from error
    return TrainedAgent(config, spec, params, q_values, env=env)


def write_agent(folder: Path, name: str, agent: TrainedAgent, facts: dict[str, Any]) -> None:
    """Write an agent as two files.

    Args:
        folder: The folder, made if needed.
        name: Name of the agent.
        agent: The agent; its run's folder is not written.
        facts: Further fields of the JSON file: the command, the date, figures.

    Raises:
        ValueError: If its network or its environment is a user's own: these are not in the files.
    """
    if agent.spec.custom:
        raise ValueError(f"the agent has a {' and a '.join(agent.spec.custom)} of its own: it cannot be loaded by name")
    arrays = {"/".join(key): np.asarray(value) for key, value in flatten_dict(agent.params).items()}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    with atomic_write(folder / f"{name}.npz") as partial:
        partial.write_bytes(content.getvalue())
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    config = {**agent.config.to_dict(), "output": None}
    write_json(folder / f"{name}.json", {**facts, "sha256": digest, "agent": agent.spec.to_dict(), "config": config})


def _size_of(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    return tuple(leaf.shape), np.dtype(leaf.dtype)
