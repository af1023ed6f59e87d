"""Greedy evaluation on the real environment: whole episodes, fixed seeds, raw returns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from jaxdqn.envs.pixels import EnvFn
from jaxdqn.envs.vector import Episode
from jaxdqn.preprocessing import next_stack

Policy = Callable[[np.ndarray], np.ndarray]
"""From what the agent sees `[N, ...]` to actions `[N]`."""


LONGEST = 1_000_000


class Evaluation(NamedTuple):
    """Returns of whole episodes, undiscounted and unscaled.

    Attributes:
        episodes: How many were played.
        mean: Mean return.
        median: Median return.
        standard_error: Sample standard deviation over the root of `episodes`; 0 for a single episode.
        min: Lowest return.
        max: Highest return.
        returns: Return of each episode, in the order of the seeds.
        lengths: Steps of each.
    """

    episodes: int
    mean: float
    median: float
    standard_error: float
    min: float
    max: float
    returns: list[float]
    lengths: list[int]


def summarise(episodes: Sequence[Episode]) -> Evaluation:
    """The figures of some episodes, at least one."""
    returns = [episode.raw_return for episode in episodes]
    spread = statistics.stdev(returns) / math.sqrt(len(returns)) if len(returns) > 1 else 0.0
    return Evaluation(
        episodes=len(returns),
        mean=statistics.fmean(returns),
        median=statistics.median(returns),
        standard_error=spread,
        min=min(returns),
        max=max(returns),
        returns=returns,
        lengths=[episode.length for episode in episodes],
    )


class Evaluator:
    """Plays episodes with a policy on environments of its own, `num_envs` at a time."""

    def __init__(
        self,
        env_fn: EnvFn,
        *,
        num_envs: int = 5,
        frame_stack: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Build the environments.

        Args:
            env_fn: Builds one environment.
            num_envs: Episodes played side by side, so that the policy sees batches.
            frame_stack: Frames to a stack; None hands observations on as they are.
            check: Called before each step; what it raises ends the episodes.
        """
        self._check = check
        self._envs: list[gym.Env] = []
        try:
            for _ in range(num_envs):
                self._envs.append(env_fn())
        except BaseException:
            self.close()
            raise
        self._frame_stack = frame_stack

    def play(self, policy: Policy, seeds: Sequence[int]) -> list[Episode]:
        """Play one whole episode from each seed.

        An environment that is done takes the next seed, so that short episodes are not preferred and no step is
        spent on a finished one.

        Returns:
            The episodes, in the order of the seeds.

        Raises:
            ValueError: If an episode has not ended after `LONGEST` steps.
        """
        episodes: list[Episode | None] = [None] * len(seeds)
        waiting = list(enumerate(seeds))[::-1]
        playing: dict[int, _Game] = {}
        obs: Any = None
        going_on = np.zeros(1, bool)  # the next frame does not open an episode
        while waiting or playing:
            self._check()
            for slot, env in enumerate(self._envs):
                if slot not in playing and waiting:
                    index, seed = waiting.pop()
                    frame, _ = env.reset(seed=seed)
                    stack = next_stack(None, frame[None], np.ones(1, bool), self._frame_stack)[0]
                    obs = np.zeros((len(self._envs), *stack.shape), stack.dtype) if obs is None else obs
                    obs[slot] = stack
                    playing[slot] = _Game(index)
            actions = policy(obs)  # slots without an episode keep an old observation: shapes never change
            for slot, game in list(playing.items()):
                frame, reward, terminated, truncated, _ = self._envs[slot].step(actions[slot])
                game.total += float(reward)
                game.length += 1
                if terminated or truncated:
                    episodes[game.index] = Episode(game.total, game.length)
                    del playing[slot]
                elif game.length >= LONGEST:
                    raise ValueError(f"an episode has not ended after {LONGEST:,} steps: wrap env with a TimeLimit")
                else:
                    obs[slot] = next_stack(obs[slot][None], frame[None], going_on, self._frame_stack)[0]
        return [episode for episode in episodes if episode is not None]

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()


class _Game:
    """An episode in play."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.total = 0.0
        self.length = 0
