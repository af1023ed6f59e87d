"""Train on your own environment and evaluate the agent: `python3 examples/own_environment.py`.

Catch: a ball falls from the top of a 10 x 5 grid, and a paddle in the lowest row must be under it at the end.
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np

import jaxdqn


class Catch(gym.Env):
    """The grid has two channels: ball and paddle. The reward is 1 for a catch and -1 for a miss, at the end."""

    observation_space = gym.spaces.Box(0, 1, (10, 5, 2), np.uint8)
    action_space = gym.spaces.Discrete(3)  # left, stay, right
    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"  # needed for the GIF only

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.ball, self.column, self.paddle = 0, int(self.np_random.integers(5)), 2
        return self._grid(), {}

    def step(self, action):
        self.ball, self.paddle = self.ball + 1, int(np.clip(self.paddle + action - 1, 0, 4))
        terminated = self.ball == 9
        reward = (1.0 if self.paddle == self.column else -1.0) if terminated else 0.0
        return self._grid(), reward, terminated, False, {}

    def render(self):
        ball, paddle = np.moveaxis(self._grid() * 255, -1, 0)
        return np.stack([ball, paddle, paddle], -1).repeat(40, 0).repeat(40, 1)

    def _grid(self):
        grid = np.zeros((10, 5, 2), np.uint8)
        grid[self.ball, self.column, 0] = grid[9, self.paddle, 1] = 1
        return grid


def main() -> None:
    """Train, then report the mean return of 100 fresh episodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=Path("runs/catch"))
    options = parser.parse_args()
    config = jaxdqn.Config(total_frames=options.frames, output=str(options.output), evaluate_every=5_000)
    for step in jaxdqn.train(config, env_fn=Catch):
        if step.evaluation is not None:
            print(f"frame {step.progress.frames:,}: mean return {step.evaluation.screening_mean:.2f}")
    agent = jaxdqn.load(options.output, env_fn=Catch)
    print(f"100 fresh episodes: {agent.evaluate(episodes=100).mean:.2f}")


if __name__ == "__main__":
    main()
