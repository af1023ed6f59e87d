"""Trained agents: read from a run's folder, evaluated, called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.linen as nn
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from jaxdqn.compilation import jit
from jaxdqn.config import Config
from jaxdqn.envs.pixels import EnvFn, make_env_fn, name_of
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.learner import Params, QFunction
from jaxdqn.networks import make_network
from jaxdqn.normalisation import init_params, make_q_values
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.run.checkpoint import AgentSpec, Checkpoints, Which
from jaxdqn.run.evaluation import Evaluation, Evaluator, Policy, summarise
from jaxdqn.run.files import read_json


def greedy_policy(q_values: QFunction, params: Params) -> Policy:
    """From observations `[N, ...]` to the best actions `[N]`, as NumPy."""
    return lambda obs: np.asarray(q_values(params, jnp.asarray(obs))).argmax(axis=-1)


class TrainedAgent:
    """A trained agent: `actions = agent(obs)`.

    Attributes:
        config: The run that trained it.
        spec: What its environment told it.
        params: Its parameters.
    """

    def __init__(
        self, config: Config, spec: AgentSpec, params: Params, q_values: QFunction, env_fn: EnvFn | None = None
    ) -> None:
        """Bind parameters to the function that takes them, and remember the user's own environment, if any."""
        self.config = config
        self.spec = spec
        self.params = params
        self._env_fn = env_fn
        self._q_values = jit(q_values)

    def build_env(self, *, render: bool = False) -> gym.Env:
        """One environment as the agent sees it: grey frames, or vectors.

        Args:
            render: Whether it must be able to draw itself.

        Raises:
            ValueError: If it cannot be made, is another than the agent was trained on, or cannot draw itself where
                it must.
        """
        config, env_fn = self.config, self._env_fn
        if "env_fn" in self.spec.custom and env_fn is None:
            raise ValueError("the agent was trained on an environment of your own: load it with that env_fn")
        build = make_env_fn(
            config.env, pixels=config.pixels, frame_size=config.frame_size, env_fn=env_fn, render=render
        )
        env = build()
        actions, shape = getattr(env.action_space, "n", None), env.observation_space.shape
        if (actions, shape) != (self.spec.num_actions, self.spec.obs_shape):
            env.close()
            raise ValueError(
                f"env {name_of(env)} has {actions} actions and observations {shape}; the agent was trained for "
                f"{self.spec.num_actions} and {self.spec.obs_shape}: load it with the env_fn it was trained with"
            )
        if render and env.render_mode != "rgb_array":
            env.close()
            raise ValueError(f'env {name_of(env)} does not draw itself: make it with render_mode="rgb_array"')
        return env

    def q_values(self, obs: Shaped[Any, "N ..."]) -> Float[Array, "N A"]:
        """Action values of observations `[N, ...]`: stacks `[N, 64, 64, 4]` uint8 for pixels."""
        return self._q_values(self.params, jnp.asarray(obs))

    def __call__(self, obs: Shaped[Any, "N ..."]) -> np.ndarray:
        """Greedy actions `[N]` of observations `[N, ...]`."""
        return greedy_policy(self._q_values, self.params)(obs)

    @property
    def frame_stack(self) -> int | None:
        """Frames to a stack; None where the agent takes vectors."""
        return self.config.frame_stack if self.config.pixels else None

    def evaluate(self, episodes: int, seed: int = 0) -> Evaluation:
        """Play whole greedy episodes on the real environment.

        Args:
            episodes: How many, at least 1.
            seed: Episode `i` starts from the `i`-th seed spawned from it.

        Raises:
            ValueError: If `episodes` is below 1 or `seed` below 0, or as `build_env` does.
        """
        if episodes < 1:
            raise ValueError(f"episodes {episodes} must be at least 1")
        seeds = spawn_seeds(seed, episodes, Purpose.EVALUATION)
        evaluator = Evaluator(self.build_env, num_envs=min(5, episodes), frame_stack=self.frame_stack)
        try:
            return summarise(evaluator.play(self, seeds))
        finally:
            evaluator.close()


def read_config(run: Path) -> Config:
    """The config of a run's folder; raises `ValueError` where it is none."""
    path = run / "config.json"
    if not run.exists():
        raise ValueError(f"run {str(run)!r} does not exist: name the folder that `jaxdqn train` made")
    if not path.is_file():
        raise ValueError(f"run {str(run)!r} holds no config.json: name the folder that `jaxdqn train` made")
    return Config.from_dict(read_json(path))


def load(
    run: str | Path, checkpoint: Which = "best", *, env_fn: EnvFn | None = None, network: nn.Module | None = None
) -> TrainedAgent:
    """Read a trained agent from a run's folder.

    Args:
        run: The folder.
        checkpoint: `"best"` (best mean over whole evaluations) or `"last"`.
        env_fn: The environment function that the run was trained with, if it was given one.
        network: The network that the run was trained with, if it was given one.

    Raises:
        ValueError: If the folder is no run, holds no such checkpoint, or holds another network's parameters.
    """
    config = read_config(Path(run))
    checkpoints = Checkpoints(Path(run) / "checkpoints")
    spec = checkpoints.spec(checkpoint)
    if network is None:
        if "network" in spec.custom:
            raise ValueError("the agent was trained with a network of your own: load it with that network")
        network = make_network(config, spec.num_actions)
    shape = (*spec.obs_shape, config.frame_stack) if config.pixels else spec.obs_shape
    channels = np.zeros(config.frame_stack, np.float32)
    stats = ObservationStats(channels, channels) if config.pixels else None
    like = jax.eval_shape(lambda key: init_params(network, key, shape, stats), jax.random.key(0))
    params = checkpoints.params(checkpoint, like)
    return TrainedAgent(config, spec, params, make_q_values(network), env_fn)
