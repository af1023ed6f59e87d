"""DQN on Pong in eager PyTorch with the protocol of CleanRL's dqn_atari: the peer of the preset `atari`.

Our own code for what https://docs.cleanrl.dev/rl-algorithms/dqn/ describes: one game behind gymnasium's wrappers,
replay of bytes in NumPy with each stack stored once, an update of 32 transitions every four steps, a target network
that is copied every 1,000 steps.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import torch
from torch import nn

GAMMA, BATCH_SIZE, UPDATE_EVERY, COPY_EVERY = 0.99, 32, 4, 1_000
WARM_UP_STEPS = 160
"""Steps that are not timed: the first updates allocate PyTorch's memory."""


class FireReset(gym.Wrapper):
    """Press FIRE after a reset."""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the game and take the action."""
        self.env.reset(**options)
        obs, _, terminated, truncated, info = self.env.step(1)
        return self.env.reset(**options) if terminated or truncated else (obs, info)


def make_game() -> gym.Env:
    """Return Pong with the wrappers of the protocol; observations are stacks `[4, 84, 84]` of bytes.

    Pong has no lives, so that the protocol's rule for lost lives, which gymnasium does not have, is not needed.
    """
    gym.register_envs(ale_py)
    env = gym.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0)
    env = FireReset(gym.wrappers.AtariPreprocessing(env, noop_max=30, frame_skip=4))
    return gym.wrappers.FrameStackObservation(gym.wrappers.TransformReward(env, np.sign), 4)


def make_network(num_actions: int) -> nn.Module:
    """Return Nature's network, from bytes: 1,687,206 parameters for six actions."""
    return nn.Sequential(
        *(nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, num_actions)),
    )


class Replay:
    """A ring of stacks: the next observation of a row is the observation of the row after it."""

    def __init__(self, capacity: int) -> None:
        """Reserve the memory."""
        self.obs = np.zeros((capacity, 4, 84, 84), np.uint8)
        self.action = np.zeros(capacity, np.int64)
        self.reward, self.done = np.zeros(capacity, np.float32), np.zeros(capacity, np.float32)
        self.capacity, self.added = capacity, 0

    def add(self, obs: np.ndarray, action: int, reward: float, done: bool, next_obs: np.ndarray) -> None:
        """Store a transition."""
        row = self.added % self.capacity
        self.obs[row], self.action[row], self.reward[row], self.done[row] = obs, action, reward, done
        self.obs[(row + 1) % self.capacity] = next_obs
        self.added += 1

    def sample(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """Return a batch: observations, actions, rewards, ends, next observations."""
        if self.added < self.capacity:
            rows = rng.integers(self.added, size=BATCH_SIZE)
        else:  # the row at the cursor is only the next observation of the row before it
            rows = (self.added + 1 + rng.integers(self.capacity - 1, size=BATCH_SIZE)) % self.capacity
        after = (rows + 1) % self.capacity
        arrays = (self.obs[rows], self.action[rows], self.reward[rows], self.done[rows], self.obs[after])
        return tuple(map(torch.from_numpy, arrays))


class Learner:
    """Network, target network and Adam, with the settings of the protocol."""

    def __init__(self, num_actions: int) -> None:
        """Build them."""
        self.network = make_network(num_actions)
        self.target = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-4)

    def update(
        self, obs: torch.Tensor, action: torch.Tensor, reward: torch.Tensor, done: torch.Tensor, next_obs: torch.Tensor
    ) -> torch.Tensor:
        """Make one update and return the loss."""
        with torch.no_grad():
            target = reward + GAMMA * self.target(next_obs / 255.0).max(1).values * (1 - done)
        taken = self.network(obs / 255.0).gather(1, action[:, None])[:, 0]
        loss = (taken - target).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def run(steps: int, capacity: int) -> float:
    """Train for some steps, with one action in a hundred at random, and return steps per second after the first."""
    env, rng = make_game(), np.random.default_rng(0)
    num_actions = int(env.action_space.n)  # type: ignore[attr-defined]
    learner, replay = Learner(num_actions), Replay(capacity)
    obs, _ = env.reset(seed=0)
    started = time.monotonic()
    for step in range(steps):
        if step == WARM_UP_STEPS:
            started = time.monotonic()
        if rng.random() < 0.01:
            action = int(rng.integers(num_actions))
        else:
            with torch.no_grad():
                action = int(learner.network(torch.from_numpy(obs)[None] / 255.0).argmax())
        next_obs, reward, terminated, truncated, _ = env.step(action)
        replay.add(obs, action, float(reward), terminated, next_obs)
        obs = next_obs if not (terminated or truncated) else env.reset()[0]
        if (step + 1) % UPDATE_EVERY == 0:
            learner.update(*replay.sample(rng))
        if (step + 1) % COPY_EVERY == 0:
            learner.target.load_state_dict(learner.network.state_dict())
    env.close()
    return (steps - WARM_UP_STEPS) / (time.monotonic() - started)
