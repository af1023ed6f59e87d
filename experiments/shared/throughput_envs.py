"""The rows of `throughput.py` about environments that gymnasium steps."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import numpy as np

import jaxdqn
from shared.throughput_rows import NUM_ENVS, Row, median_seconds


def step_seconds(envs: dict[str, gym.vector.VectorEnv], actions: np.ndarray, rounds: int) -> dict[str, float]:
    """Return the median time of a step of each vector environment, stepped in turns; they are closed."""
    for env in envs.values():
        env.reset(seed=0)
    found = median_seconds(rounds * 10, **{name: lambda env=env: env.step(actions)[1] for name, env in envs.items()})
    for env in envs.values():
        env.close()
    return found


def environment_rows(rounds: int) -> Iterator[Row]:
    """Compare a step of eight environments that draw: each in a separate process, and all in this one."""
    build = jaxdqn.make_env_fn("CartPole-v1", pixels=True, frame_size=64)
    envs = {name: jaxdqn.make_vector_env(build, NUM_ENVS, workers=name == "ours") for name in ("ours", "peer")}
    found = step_seconds(envs, np.arange(NUM_ENVS) % 2, rounds)
    yield Row("step of 8 environments in processes", found["ours"], found["peer"], "s", "ours in one process")


def game_rows(rounds: int) -> Iterator[Row]:
    """Compare a step of eight games of Pong: on ale-py's threads, and behind gymnasium's wrappers in processes."""

    def wrapped() -> gym.Env:
        import ale_py

        gym.register_envs(ale_py)
        env = gym.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0)
        return gym.wrappers.AtariPreprocessing(env)

    ours = jaxdqn.make_vector_env(jaxdqn.make_env_fn("ALE/Pong-v5", frame_size=84, sticky_actions=0.0), NUM_ENVS)
    envs = {"ours": ours, "peer": gym.vector.AsyncVectorEnv([wrapped] * NUM_ENVS, context="spawn")}
    found = step_seconds(envs, np.arange(NUM_ENVS) % 6, rounds)
    yield Row("step of 8 games of Pong", found["ours"], found["peer"], "s", "gymnasium's wrappers, in processes")
