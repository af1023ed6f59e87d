"""Environments whose observations are random images or vectors of a given space."""

from __future__ import annotations

import gymnasium as gym
import numpy as np


class RandomObs(gym.Env):
    """Return random observations of a space, and keep the newest; episodes have five steps."""

    action_space = gym.spaces.Discrete(3)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, as in gymnasium

    def __init__(self, space, render_mode=None, picture=None):
        self.observation_space = space
        self.render_mode = render_mode
        self.picture = picture
        self.drawn = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def observe(self):
        space = self.observation_space
        if space.dtype == np.bool_:
            self.newest = self.np_random.random(space.shape) < 0.5
        elif np.issubdtype(space.dtype, np.floating):
            low, high = np.maximum(space.low, -5), np.minimum(space.high, 5)
            self.newest = (low + (high - low) * self.np_random.random(space.shape)).astype(space.dtype)
        else:
            self.newest = self.np_random.integers(space.low, space.high, endpoint=True).astype(space.dtype)
        return self.newest

    def step(self, action):
        self.steps += 1
        return self.observe(), float(action), self.steps == 5, False, {}

    def render(self):
        self.drawn += 1
        return np.full((40, 60, 3), 200, np.uint8) if self.picture is None else self.picture()


class GivenObs(RandomObs):
    """Return the observations of `picture()`, also if the space does not allow them."""

    def observe(self):
        return self.picture()


def box(shape, dtype=np.uint8, low=0, high=None):
    high = {np.uint8: 255, np.float32: 1.0, np.bool_: 1}[dtype] if high is None else high
    return gym.spaces.Box(low, high, shape, dtype)
