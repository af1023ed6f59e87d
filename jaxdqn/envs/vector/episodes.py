"""Environments in lockstep, in the one row format: gymnasium's `NEXT_STEP` autoreset.

Those that are trained on never stop; evaluation, the random rollout and pictures play whole episodes from seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.envs.rows import EpisodeEnds
from jaxdqn.envs.vector.stepper import Stepper
from jaxdqn.envs.vector.workers import WorkerVectorEnv


def make_vector_env(env_fn: EnvFn, num_envs: int, *, workers: bool = False) -> gym.vector.VectorEnv:
    """`num_envs` copies of an environment, in `NEXT_STEP` autoreset mode.

    The step after an episode's end ignores its action and returns the next episode's first observation, so that the
    true final observation is a row of its own.

    Args:
        env_fn: Builds one environment.
        num_envs: How many.
        workers: Whether each has a process of its own (`WorkerVectorEnv`) or all are stepped in this one.
    """
    if workers:
        return WorkerVectorEnv(_Silent(env_fn), num_envs)
    mode = gym.vector.AutoresetMode.NEXT_STEP
    envs = gym.vector.SyncVectorEnv([_Silent(env_fn)] * num_envs, autoreset_mode=mode)
    if len({id(env.unwrapped) for env in envs.envs}) < num_envs:
        raise ValueError("env_fn gave the same environment twice: let it build a new one at each call")
    return envs


class WithoutInfo(gym.Wrapper):
    """Drops `info`, which nothing here reads: gymnasium cannot put together those of several environments always."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset it."""
        return self.env.reset(seed=seed, options=options)[0], {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step it."""
        return *self.env.step(action)[:4], {}


class _Silent:
    """Builds an environment within `WithoutInfo`, also in a process of its own."""

    def __init__(self, env_fn: EnvFn) -> None:
        self._env_fn = env_fn

    def __call__(self) -> gym.Env:
        return WithoutInfo(self._env_fn())


class Episode(NamedTuple):
    """A finished episode.

    Attributes:
        raw_return: Sum of its rewards, unscaled and undiscounted.
        length: Its steps.
    """

    raw_return: float
    length: int


class CutEpisode(Episode):
    """One that was still going on after `max_steps` steps, and was cut there: it counts with what it had got."""


def episodes_of(ended: EpisodeEnds) -> list[Episode]:
    """The episodes that ended, in the order of time and then of environments; NumPy arrays."""
    places = np.nonzero(ended.ended)
    pairs = zip(ended.raw_return[places], ended.length[places], strict=True)
    return [Episode(float(raw_return), int(length)) for raw_return, length in pairs]


class SeededEpisodes(gym.Wrapper):
    """Begins each episode from the next of some seeds, and rests once there is none.

    Attributes:
        index: Which of the seeds the episode was begun from; None while it rests.
        cut: Whether the newest episode was cut at `max_steps`.
    """

    def __init__(self, env: gym.Env, seeds: Iterator[tuple[int, int]], max_steps: int | None = None) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            seeds: Index and seed of each episode, which several environments may share.
            max_steps: Steps after which an episode that goes on is truncated; None never truncates.
        """
        super().__init__(env)
        self._seeds, self._max_steps, self._steps = seeds, max_steps, 0
        self.index: int | None = None
        self.cut = False
        self._resting: Any = np.zeros(env.observation_space.shape, env.observation_space.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the next episode, whatever seed is given."""
        self.index, own_seed = next(self._seeds, (None, None))
        self._steps, self.cut = 0, False
        return self._resting if self.index is None else self.env.reset(seed=own_seed, options=options)[0], {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step, or nothing while it rests."""
        if self.index is None:
            return self._resting, 0.0, False, False, {}
        obs, reward, terminated, truncated, _ = self.env.step(action)
        self._steps += 1
        self.cut = self._steps == self._max_steps and not (terminated or truncated)
        return obs, reward, terminated, truncated or self.cut, {}


class EpisodeStepper(Stepper):
    """Steps environments through whole episodes of given seeds.

    An environment that is done takes the next seed, so that short episodes are not preferred; when no seed is left it
    rests, and the shapes never change.
    """

    def __init__(
        self, envs: Sequence[gym.Env], seeds: Iterable[int], *, max_steps: int | None = None, **options: Any
    ) -> None:
        """Begin the first episodes.

        Args:
            envs: Played side by side; they are left open.
            seeds: One for each episode.
            max_steps: Steps after which an episode that goes on is cut; None never cuts.
            options: As `Stepper` has them.
        """
        shared = enumerate(seeds)
        self.playing = [SeededEpisodes(env, shared, max_steps) for env in envs]
        makers = [lambda env=env: env for env in self.playing]
        mode = gym.vector.AutoresetMode.NEXT_STEP
        super().__init__(gym.vector.SyncVectorEnv(makers, autoreset_mode=mode), **options)

    def finished(self, ended: EpisodeEnds) -> dict[int, Episode]:
        """The episodes that ended in the newest step, by the place of their seed."""
        slots = np.flatnonzero(ended.ended)
        found = {}
        for slot, episode in zip(slots, episodes_of(ended), strict=True):
            playing = self.playing[slot]
            assert playing.index is not None  # what rests ends nothing
            found[playing.index] = CutEpisode(*episode) if playing.cut else episode
        return found


def random_stacks(env: gym.Env, *, frames: int, frame_stack: int | None, seed: int) -> np.ndarray:
    """Stacks `[frames or more, H, W, K]` of whole episodes of a uniformly random policy, at most twice the frames.

    Each episode's final observation is left out, as TorchRL's `ObservationNorm.init_stats` does.

    Raises:
        FloatingPointError: If an observation or a reward is not finite.
    """
    rng = np.random.default_rng(seed)
    num_actions = int(env.action_space.n)  # type: ignore[attr-defined]  # discrete, as `make_env_fn` has checked
    seeds = (int(rng.integers(2**31)) for _ in range(2**31))
    stepper = EpisodeStepper([env], seeds, frame_stack=frame_stack, where=" of the random rollout")
    stacks: list[Any] = []
    while True:
        ended = bool(stepper.cursor.last[0])
        # An environment need not end its episodes.
        if len(stacks) >= (frames if ended else 2 * frames):
            return np.stack(stacks)
        action = 0
        if not ended:
            stacks.append(stepper.cursor.stack[0])
            action = int(rng.integers(num_actions))
        stepper.step([action], frames=len(stacks))
