"""Load a trained agent from a run's folder."""

from __future__ import annotations

from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from jaxdqn.checkpoints.agent_files import AgentSpec, Checkpoints, Which
from jaxdqn.checkpoints.compatibility import config_of_file
from jaxdqn.config import Config
from jaxdqn.distributions import num_taus
from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.evaluation.trained_agent import TrainedAgent
from jaxdqn.learner import Params, QFunction
from jaxdqn.networks.apply import make_apply, q_values_of
from jaxdqn.networks.architectures import make_network
from jaxdqn.normalisation import init_params
from jaxdqn.observations import stats_frames
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.storage.atomic import read_json


def read_config(run: Path) -> Config:
    """Read the config of a run's folder; raise `ValueError` if the folder is not a run."""
    path = run / "config.json"
    if not run.exists():
        raise ValueError(f"run {str(run)!r} does not exist: name the folder that `jaxdqn train` made")
    if not path.is_file():
        raise ValueError(f"run {str(run)!r} holds no config.json: name the folder that `jaxdqn train` made")
    fields = read_json(path)
    try:
        return config_of_file(fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load(
    run: str | Path,
    checkpoint: Which = "best",
    *,
    env_fn: EnvFn | None = None,
    env: str | None = None,
    network: nn.Module | None = None,
) -> TrainedAgent:
    """Read a trained agent from a run's folder.

    Args:
        run: The folder.
        checkpoint: `"best"` (best mean over whole evaluations) or `"last"`.
        env_fn: Function that builds the environment to play on: the `eval_env_fn` or the `env_fn` that the run was
            trained with, if any.
        env: Gymnasium id to play on; None takes that of `config.json`, which must be named here if it imports a module.
        network: The network that the run was trained with, if it was not the config's.

    Raises:
        ValueError: If the folder is not a run, or has no such checkpoint, or has parameters of another network.
    """
    config = read_config(Path(run))
    checkpoints = Checkpoints(Path(run) / "checkpoints")
    for _ in range(5):
        index = checkpoints.index()
        try:
            return _load(config, checkpoints, checkpoint, env_fn, env, network)
        except Exception:
            if checkpoints.index() == index:  # otherwise a run in progress has replaced the agent: try again
                raise
    return _load(config, checkpoints, checkpoint, env_fn, env, network)


def _load(
    config: Config,
    checkpoints: Checkpoints,
    checkpoint: Which,
    env_fn: EnvFn | None,
    env: str | None,
    network: nn.Module | None,
) -> TrainedAgent:
    spec = checkpoints.spec(checkpoint, config)
    q_values, abstract_params = greedy_function(config, spec, network)
    return TrainedAgent(config, spec, checkpoints.params(checkpoint, abstract_params), q_values, env_fn, env)


def greedy_function(config: Config, spec: AgentSpec, network: nn.Module | None = None) -> tuple[QFunction, Params]:
    """Return `(params, obs) -> action values` of an agent, and the shapes and dtypes of its parameters.

    Args:
        config: The config of its run.
        spec: What the agent knows of its environment.
        network: The network that it was trained with; None: the config's.

    Raises:
        ValueError: If the agent was trained with a network of its own, and `network` is None.
    """
    if network is None:
        if "network" in spec.custom:
            raise ValueError("the agent was trained with a network of your own: load it with that network")
        network = make_network(config, spec.num_actions, spec.obs)
    shape = spec.obs.seen_shape
    channels = np.zeros(shape[-1:], np.float32)
    stats = ObservationStats(channels, channels) if stats_frames(config, spec.obs) else None
    abstract_params = jax.eval_shape(lambda key: init_params(network, key, shape, stats), jax.random.key(0))
    return q_values_of(make_apply(network, spec.obs.scale, num_taus(config))), abstract_params
