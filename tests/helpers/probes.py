"""Environments with known values, smallest first, as in rejax and in Jones, Debugging RL (2021)."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

TINY = [  # flags of the smallest complete run
    *("--no-pixels", "--total-frames", "256", "--num-envs", "4", "--batch-size", "16", "--capacity", "512"),
    *("--warmup-frames", "64", "--updates-per-batch", "1", "--evaluate-every", "0", "--evaluation-episodes", "4"),
]


class Probe(gym.Env):
    """A chain of `length` steps with vector observations; subclasses define the reward."""

    length = 1
    truncates = False  # the end is a time limit, not a terminal state

    def __init__(self):
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_index = 0
        self.sign = 1.0 if self.np_random.random() < 0.5 else -1.0
        return self.observe(), {}

    def observe(self):
        return np.array([self.sign, 2 * self.step_index / self.length - 1], np.float32)

    def step(self, action):
        reward = self.reward(int(action))
        self.step_index += 1
        done = self.step_index == self.length
        return self.observe(), reward, done and not self.truncates, done and self.truncates, {}


class OneStep(Probe):
    """Reward 1 for every action: Q = 1."""

    def reward(self, action):
        return 1.0


class ObservationValue(Probe):
    """The reward is the sign that the observation shows: Q = sign."""

    def reward(self, action):
        return self.sign


class ActionValue(Probe):
    """Action 1 gives 1, action 0 gives -1, in every state."""

    def reward(self, action):
        return 1.0 if action == 1 else -1.0


class Delayed(Probe):
    """Two steps, the second gives 1: Q = gamma, then 1."""

    length = 2

    def reward(self, action):
        return 1.0 if self.step_index == 1 else 0.0


class TerminatingChain(Probe):
    """Ten steps of reward 1, then a terminal state: V(t) = sum of gamma^i over the steps left."""

    length = 10

    def reward(self, action):
        return 1.0


class TruncatedChain(TerminatingChain):
    """The same, truncated by a time limit, with an observation that does not show time: V = 1 / (1 - gamma)."""

    truncates = True

    def observe(self):
        return np.array([1.0, 0.0], np.float32)


class Endless(Probe):
    """Never ends; every step gives 1."""

    length = 10**9

    def reward(self, action):
        return 1.0


class Bar(Probe):
    """One step from a frame with a bar on its left: action 0 gives 1, action 1 gives -1."""

    frame = np.zeros((44, 44), np.uint8)
    frame[:, :12] = 255

    def __init__(self):
        super().__init__()
        self.observation_space = gym.spaces.Box(0, 255, self.frame.shape, np.uint8)

    def observe(self):
        return self.frame

    def reward(self, action):
        return 1.0 - 2.0 * action


def counting_env(length, truncates=False):
    """Return a functional environment that counts its `length` steps from 0; step `i` gives reward `10 * i`."""
    import jax.numpy as jnp

    from jaxdqn.envs.functional.env import FunctionalEnv

    def observe(state):
        return jnp.full(1, state, jnp.float32)

    def step(key, state, action):
        next_state, end = state + 1, jnp.bool_(state + 1 >= length)
        return next_state, observe(next_state), jnp.float32(10) * state, end & (not truncates), end & truncates

    return FunctionalEnv(
        reset=lambda key: (jnp.int32(0), observe(jnp.int32(0))),
        step=step,
        observation_space=gym.spaces.Box(0, 100, (1,), np.float32),
        action_space=gym.spaces.Discrete(2),
        observe=observe,
    )
