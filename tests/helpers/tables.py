"""Environments from tables, whose action values NumPy computes: the same one for both loops."""

from typing import NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from jaxdqn.envs.functional.env import FunctionalEnv

GAMMA = 0.8


class Table(NamedTuple):
    """States `S`, of which an episode starts in one of the first `starts`; two actions.

    Attributes:
        obs: What each state shows `[S, D]`; two states may show the same.
        following: The next state `[S, A]`.
        rewards: Equally likely rewards `[S, A, K]`.
        terminated: Whether a step ends in a terminal state `[S, A]`.
        truncated: Whether a step ends the episode by a time limit `[S, A]`.
        starts: Number of states in which an episode starts, each as likely.
        masks: Actions that are allowed `[S, A]`; None: all.
    """

    obs: np.ndarray
    following: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    starts: int
    masks: np.ndarray | None = None


def all_probes():
    """Return the probe environments of `probes.py` as one table, and how many of its states have a value to check.

    An episode is one of them. By state: 0 one step with reward 1; 1, 2 the reward is the sign that the observation
    shows; 3 the reward is that of the action, 1 or -1; 4, 5 a delayed reward; 6 to 9 a chain that ends in a terminal
    state; 10 to 13 a chain that a time limit ends and whose observation does not show time.
    """
    starts = [0, 1, 2, 3, 4, 6, 10]
    order = starts + [state for state in range(14) if state not in starts]
    place = {state: index for index, state in enumerate(order)}
    reward, ends, truncates = np.zeros((14, 2)), np.zeros((14, 2), bool), np.zeros((14, 2), bool)
    following = np.zeros((14, 2), int)
    for state in range(14):
        following[place[state]] = place[min(state + 1, 13)]
    for state, rewards in {0: [1, 1], 1: [1, 1], 2: [-1, -1], 3: [-1, 1], 5: [1, 1]}.items():
        reward[place[state]] = rewards
    for state in (*range(6, 10), *range(10, 14)):
        reward[place[state]] = 1
    for state in (0, 1, 2, 3, 5, 9):
        ends[place[state]] = True
    truncates[place[13]] = True
    shown = np.eye(11)[[min(state, 10) for state in order]]
    return Table(shown, following, reward[..., None], ends, truncates, len(starts))


def lottery():
    """Return a table of two steps: the first gives 0 or 8, the second ends with one of four rewards."""
    rewards = np.array([[[0.0, 8.0, 0.0, 8.0]] * 2, [[-4.0, 0.0, 4.0, 12.0]] * 2])
    ends = np.array([[False, False], [True, True]])
    return Table(np.eye(2), np.ones((2, 2), int), rewards, ends, np.zeros((2, 2), bool), 2)


def functional_env(table):
    following, terminated, truncated = map(jnp.asarray, (table.following, table.terminated, table.truncated))
    obs, rewards = jnp.asarray(table.obs, jnp.float32), jnp.asarray(table.rewards, jnp.float32)

    def reset(key):
        state = jax.random.randint(key, (), 0, table.starts)
        return state, obs[state]

    def step(key, state, action):
        reward = jax.random.choice(key, rewards[state, action])
        new = following[state, action]
        return new, obs[new], reward, terminated[state, action], truncated[state, action]

    masks = None if table.masks is None else jnp.asarray(table.masks)
    return FunctionalEnv(
        reset,
        step,
        gym.spaces.Box(-1.0, 1.0, table.obs.shape[1:], np.float32),
        gym.spaces.Discrete(table.following.shape[1]),
        observe=lambda state: obs[state],
        action_mask=None if masks is None else lambda state: masks[state],
    )


class TableEnv(gym.Env):
    """The same for gymnasium; refuses an action that is not allowed."""

    def __init__(self, table):
        self.table = table
        self.observation_space = gym.spaces.Box(-1.0, 1.0, table.obs.shape[1:], np.float32)
        self.action_space = gym.spaces.Discrete(table.following.shape[1])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(self.table.starts))
        return self.observe(), self.info()

    def observe(self):
        return self.table.obs[self.state].astype(np.float32)

    def info(self):
        return {} if self.table.masks is None else {"action_mask": self.table.masks[self.state].astype(np.int8)}

    def step(self, action):
        table, at = self.table, (self.state, int(action))
        if table.masks is not None and not table.masks[at]:
            raise ValueError(f"action {action} is not allowed in state {self.state}")
        reward = float(self.np_random.choice(table.rewards[at]))
        self.state = int(table.following[at])
        return self.observe(), reward, bool(table.terminated[at]), bool(table.truncated[at]), self.info()


def optimal_values(table, munchausen=None):
    """Return action values `[D, A]` of what observations show, by iterating the operator to its fixed point."""
    weight = table.obs.T / table.obs.T.sum(axis=1, keepdims=True)  # states that show the same have the same value
    values = np.zeros((table.obs.shape[1], table.following.shape[1]))
    allowed = np.ones_like(table.terminated) if table.masks is None else table.masks
    for _ in range(300):
        by_state = np.where(allowed, table.obs @ values, -np.inf)
        if munchausen is None:
            following, bonus = by_state.max(axis=1), np.zeros_like(by_state)
        else:
            scaled = by_state - by_state.max(axis=1, keepdims=True)
            scaled -= munchausen.tau * np.log(np.exp(scaled / munchausen.tau).sum(axis=1, keepdims=True))
            policy = np.exp(scaled / munchausen.tau)
            following = np.sum(policy * np.where(allowed, by_state - scaled, 0.0), axis=1)
            bonus = munchausen.alpha * np.clip(scaled, munchausen.clip, 0.0)
        future = np.where(table.terminated, 0.0, GAMMA * following[table.following])
        values = weight @ (table.rewards.mean(axis=2) + bonus + future)
    return values
