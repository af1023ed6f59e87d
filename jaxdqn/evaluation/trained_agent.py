"""Trained agents: evaluate one, call it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from jaxdqn.checkpoints.agent_files import AgentSpec
from jaxdqn.compilation import jit
from jaxdqn.config import Config
from jaxdqn.envs.gymnasium.building import make_env_fn_of, spec_of_env
from jaxdqn.envs.gymnasium.wrappers import EnvFn, name_of
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.evaluation.evaluator import Evaluation, Evaluator, summarise
from jaxdqn.evaluation.policies import greedy_policy
from jaxdqn.learner import Params, QFunction


def build_eval_fn(config: Config, env_fn: EnvFn | None, *, render: bool = False) -> EnvFn:
    """Return a function that builds a run's evaluation environment. See `make_env_fn_of`.

    Args:
        config: The run's config.
        env_fn: The user's own environment, in place of the config's.
        render: Whether the environment must be able to draw itself.
    """
    return make_env_fn_of(config, config.evaluation_env, env_fn=env_fn, render=render)


def check_no_import(env: str, flag: str) -> None:
    """Raise `ValueError` if an id that was read from a file imports a module: that would run code of the file's author.

    Args:
        env: Gymnasium id; `module:Id` imports a module.
        flag: The flag that names the environment.
    """
    module, colon, _ = env.partition(":")
    if colon:
        raise ValueError(f"config.json names env {env!r}, which imports {module}: pass {flag} {env} if you trust it")


def check_same_env(env: gym.Env, spec: AgentSpec, hint: str) -> None:
    """Raise `ValueError`, with a hint, if an environment has other actions or observations than an agent's."""
    obs, actions = spec_of_env(env, spec.obs.stack), getattr(env.action_space, "n", None)
    if (actions, obs) != (spec.num_actions, spec.obs):
        there, here = (f"{each.shape} {np.dtype(each.dtype).name}" for each in (obs, spec.obs))
        if there == here and obs != spec.obs:
            there, here = f"{there} up to {obs.scale:g}", f"{here} up to {spec.obs.scale:g}"
        raise ValueError(
            f"env {name_of(env)} has {actions} actions and observations {there}; the agent was trained for "
            f"{spec.num_actions} and {here}: {hint}"
        )


class TrainedAgent:
    """A trained agent: `actions = agent(obs)`.

    Attributes:
        config: The config of its run.
        spec: The number of actions, and the observations, of its environment.
        params: Its parameters.
    """

    def __init__(
        self,
        config: Config,
        spec: AgentSpec,
        params: Params,
        q_values: QFunction,
        env_fn: EnvFn | None = None,
        env: str | None = None,
    ) -> None:
        """Bind parameters to the network's function `q_values`; for `env_fn` and `env` see `load`."""
        self.config = config
        self.spec = spec
        self.params = params
        self._env_fn, self._env = env_fn, env
        self._q_values = jit(q_values)

    def build_env(self, *, render: bool = False) -> gym.Env:
        """Return one environment whose observations are those that the agent was trained on.

        Args:
            render: Whether the environment must be able to draw itself.

        Raises:
            ValueError: If it cannot be made, differs from the one the agent was trained on, or cannot draw itself
                although `render` is set.
        """
        config, env_fn = self.config, self._env_fn
        if "env_fn" in self.spec.custom and env_fn is None:
            raise ValueError("the agent was trained on an environment of your own: load it with that env_fn")
        if self._env is not None:
            config = dataclasses.replace(config, eval_env=None).for_env(self._env)
        elif env_fn is None:
            check_no_import(config.evaluation_env, "--env")
        env = build_eval_fn(config, env_fn, render=render)()
        try:
            check_same_env(env, self.spec, "play it on the environment it was trained on (env, or your own env_fn)")
        except ValueError:
            env.close()
            raise
        if render and env.render_mode != "rgb_array":
            env.close()
            raise ValueError(f'env {name_of(env)} does not draw itself: make it with render_mode="rgb_array"')
        return env

    def q_values(self, obs: Shaped[Any, "N ..."]) -> Float[Array, "N A"]:
        """Return action values `[N, A]` of observations `[N, ...]`, for example stacks `[N, 64, 64, 4]` uint8."""
        return self._q_values(self.params, jnp.asarray(obs))

    def __call__(self, obs: Shaped[Any, "N ..."], mask: Bool[Any, "N A"] | None = None) -> np.ndarray:
        """Return greedy actions `[N]` for observations `[N, ...]`, among those that a mask allows."""
        return greedy_policy(self._q_values, self.params)(obs, mask)

    @property
    def frame_stack(self) -> int | None:
        """Frames in a stack; None if the agent takes vectors."""
        return self.spec.obs.stack

    def evaluate(
        self,
        episodes: int,
        seed: int = 0,
        *,
        max_episode_steps: int | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> Evaluation:
        """Play whole greedy episodes on the environment that the run was evaluated on.

        Args:
            episodes: Number of episodes, at least 1.
            seed: Episode `i` starts from the `i`-th seed that is spawned from it.
            max_episode_steps: Steps after which an episode is cut; None takes the config's.
            say: Receives a progress message every ten seconds.

        Raises:
            FloatingPointError: If an observation or a reward is not finite.
            ValueError: If `episodes` or `max_episode_steps` is below 1 or `seed` below 0, or from `build_env`.
        """
        max_steps = self.config.max_episode_steps if max_episode_steps is None else max_episode_steps
        for name, value in (("episodes", episodes), ("max_episode_steps", max_steps)):
            if value < 1:
                raise ValueError(f"{name} {value} must be at least 1")
        seeds = spawn_seeds(seed, episodes, Purpose.EVALUATION)
        kwargs: dict[str, Any] = {"frame_stack": self.frame_stack, "max_steps": max_steps, "say": say}
        evaluator = Evaluator(self.build_env, num_envs=min(5, episodes), **kwargs)
        try:
            return summarise(evaluator.play(self, seeds))
        finally:
            evaluator.close()
