"""Greedy evaluation on the real environment: whole episodes, fixed seeds, raw returns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gymnasium as gym
import numpy as np

from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.envs.vector.episodes import CutEpisode, Episode, EpisodeStepper

Policy = Callable[..., np.ndarray]
"""Function from observations `[N, ...]`, and masks of allowed actions `[N, A]` if there are any, to actions `[N]`."""

MAX_EPISODE_STEPS = 27_000
"""Steps after which an episode is cut: Atari's usual limit of 108,000 frames, at four frames a step."""

SECONDS_BETWEEN_NOTES = 10.0


class Evaluation(NamedTuple):
    """Returns of whole episodes, undiscounted and unscaled.

    Attributes:
        episodes: Number of episodes that were played.
        mean: Mean return.
        median: Median return.
        standard_error: Sample standard deviation divided by the square root of `episodes`; 0 for a single episode.
        min: Lowest return.
        max: Highest return.
        returns: Return of each episode, in the order of the seeds.
        lengths: Steps of each episode.
        cut: Number of episodes that reached `max_episode_steps`; they count with their return up to then.
        screening_mean: During a run: mean return of the episodes that every agent plays, which is unbiased (see
            `Selection`). None in other evaluations, whose `mean` is unbiased.
        screening_standard_error: The standard error of `screening_mean`; None as well for a single episode.
    """

    episodes: int
    mean: float
    median: float
    standard_error: float
    min: float
    max: float
    returns: list[float]
    lengths: list[int]
    cut: int = 0
    screening_mean: float | None = None
    screening_standard_error: float | None = None


def summarise(episodes: Sequence[Episode]) -> Evaluation:
    """Return the statistics of at least one episode."""
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
        cut=sum(isinstance(episode, CutEpisode) for episode in episodes),
    )


class Evaluator:
    """Plays episodes with a policy on separate environments, `num_envs` at a time."""

    def __init__(
        self,
        env_fn: EnvFn,
        *,
        num_envs: int = 5,
        frame_stack: int | None = None,
        max_steps: int = MAX_EPISODE_STEPS,
        check: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Build the environments.

        Args:
            env_fn: Builds one environment.
            num_envs: Number of episodes played in parallel, so that the policy receives batches.
            frame_stack: Frames in a stack; None passes observations unchanged.
            max_steps: Steps after which an episode is cut, and counts as truncated.
            check: Called before each step; an exception that it raises ends the evaluation.
            say: Receives a progress message every ten seconds.
        """
        self._check, self._say = check, say
        self._frame_stack, self._max_steps = frame_stack, max_steps
        self._envs: list[gym.Env] = []
        try:
            for _ in range(num_envs):
                self._envs.append(env_fn())
        except BaseException:
            self.close()
            raise

    def play(self, policy: Policy, seeds: Sequence[int]) -> list[Episode]:
        """Play one whole episode from each seed.

        An environment whose episode has ended takes the next seed. So all seeds count, not only those of short
        episodes, and no step is wasted on a finished episode.

        Returns:
            The episodes, in the order of the seeds.

        Raises:
            FloatingPointError: If an observation or a reward is not finite.
            ValueError: If an observation is outside the environment's observation space.
        """
        note_due, steps = time.monotonic() + SECONDS_BETWEEN_NOTES, 0
        episodes: dict[int, Episode] = {}
        self._check()
        stepper = EpisodeStepper(
            self._envs, seeds, max_steps=self._max_steps, frame_stack=self._frame_stack, where=" of an evaluation"
        )
        while len(episodes) < len(seeds):
            self._check()
            # Environments without an episode keep an old observation, so that shapes never change.
            _, ended = stepper.step(policy(*stepper.cursor.seen), frames=steps)
            episodes |= stepper.finished(ended)
            steps += len(self._envs)
            if time.monotonic() > note_due:
                note_due = time.monotonic() + SECONDS_BETWEEN_NOTES
                longest = int(stepper.cursor.episode_step.max())
                self._say(
                    f"evaluating: {len(episodes)} of {len(seeds)} episodes done, the longest open one is at step "
                    f"{longest:,} of at most {self._max_steps:,}"
                )
        return [episodes[index] for index in range(len(seeds))]

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()
