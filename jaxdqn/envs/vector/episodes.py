"""Vector environments in gymnasium's `NEXT_STEP` autoreset mode, and whole episodes from given seeds.

Training steps its environments continuously; evaluation, the random rollout and pictures play whole episodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from jaxdqn.envs.atari import AtariEnvFn
from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.envs.rows import EpisodeEnds
from jaxdqn.envs.vector.stepper import ACTION_MASK, LIVES, Stepper
from jaxdqn.envs.vector.workers import WorkerVectorEnv


def make_vector_env(env_fn: EnvFn, num_envs: int, *, workers: bool = False) -> gym.vector.VectorEnv:
    """Return `num_envs` copies of an environment, in `NEXT_STEP` autoreset mode.

    The step after an episode's end ignores its action and returns the next episode's first observation, so that the
    true final observation has its own row.

    Args:
        env_fn: Builds one environment.
        num_envs: Number of copies.
        workers: Whether each copy has its own process (`WorkerVectorEnv`); otherwise all are stepped in this process.
            Without effect on Atari games of `make_env_fn`: ale-py steps them on its threads (`AtariGames`).

    Raises:
        ValueError: If `env_fn` returns the same environment twice.
        WorkerStartError: If an environment cannot be built in a worker, or a worker cannot be started.
    """
    if isinstance(env_fn, AtariEnvFn):
        return env_fn.make_many(num_envs)
    if workers:
        return WorkerVectorEnv(_WithoutInfoFn(env_fn), num_envs)
    mode = gym.vector.AutoresetMode.NEXT_STEP
    envs = gym.vector.SyncVectorEnv([_WithoutInfoFn(env_fn)] * num_envs, autoreset_mode=mode)
    if len({id(env.unwrapped) for env in envs.envs}) < num_envs:
        raise ValueError("env_fn returned the same environment twice: return a new one at each call")
    return envs


class WithoutInfo(gym.Wrapper):
    """Drop `info` except `action_mask` and `lives`: gymnasium cannot always combine those of several environments."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment."""
        obs, info = self.env.reset(seed=seed, options=options)
        return obs, needed_info(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment."""
        *result, info = self.env.step(action)
        return *result, needed_info(info)


def needed_info(info: Any) -> dict[str, Any]:
    """Return the part of an environment's `info` that is read: the mask of allowed actions and the lives, if given."""
    if not isinstance(info, dict):
        return {}
    kept = {ACTION_MASK: np.asarray(info[ACTION_MASK])} if ACTION_MASK in info else {}
    lives: Any = info.get(LIVES)
    if np.ndim(lives) == 0 and np.issubdtype(np.asarray(lives).dtype, np.number):
        kept[LIVES] = np.asarray(lives, np.float64)
    return kept


def has_action_masks(env: gym.Env) -> bool:
    """Return whether an environment gives masks of its allowed actions, in `info` of its reset."""
    try:
        return ACTION_MASK in env.reset()[1]
    except Exception:  # the first reset of the run raises it again, with the environment's name
        return False


class _WithoutInfoFn:
    """Build an environment in a `WithoutInfo` wrapper; a class, so that it can be sent to a worker process."""

    def __init__(self, env_fn: EnvFn) -> None:
        self._env_fn = env_fn

    def __call__(self) -> gym.Env:
        return WithoutInfo(self._env_fn())


class Episode(NamedTuple):
    """A finished episode.

    Attributes:
        raw_return: Sum of its rewards, unscaled and undiscounted.
        length: Number of its steps.
    """

    raw_return: float
    length: int


class CutEpisode(Episode):
    """An episode that had not ended after `max_steps` steps and was cut there; it counts with its return so far."""


def episodes_of(ended: EpisodeEnds) -> list[Episode]:
    """Return the episodes that ended, ordered by time and then by environment; takes NumPy arrays."""
    indices = np.nonzero(ended.ended)
    pairs = zip(ended.raw_return[indices], ended.length[indices], strict=True)
    return [Episode(float(raw_return), int(length)) for raw_return, length in pairs]


class SeededEpisodes(gym.Wrapper):
    """Start each episode from the next seed, and be idle when no seed is left.

    Attributes:
        index: Index of the seed of the current episode; None while idle.
        cut: Whether the newest episode was cut at `max_steps`.
    """

    def __init__(self, env: gym.Env, seeds: Iterator[tuple[int, int]], max_steps: int | None = None) -> None:
        """Wrap an environment.

        Args:
            env: The environment.
            seeds: Index and seed of each episode; several environments may share the iterator.
            max_steps: Steps after which an episode that has not ended is truncated; None: never.
        """
        super().__init__(env)
        self._seeds, self._max_steps, self._steps = seeds, max_steps, 0
        self.index: int | None = None
        self.cut = False
        self._idle_obs: Any = np.zeros(env.observation_space.shape, env.observation_space.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the next episode from its own seed; `seed` is ignored."""
        self.index, own_seed = next(self._seeds, (None, None))
        self._steps, self.cut = 0, False
        if self.index is None:
            return self._idle_obs, {}
        obs, info = self.env.reset(seed=own_seed, options=options)
        return obs, needed_info(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take one step; do nothing while idle."""
        if self.index is None:
            return self._idle_obs, 0.0, False, False, {}
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        self.cut = self._steps == self._max_steps and not (terminated or truncated)
        return obs, reward, terminated, truncated or self.cut, needed_info(info)


class EpisodeStepper(Stepper):
    """Step environments through whole episodes from given seeds.

    An environment whose episode has ended takes the next seed, so that short episodes are not preferred. If no seed is
    left, it is idle; the shapes never change.
    """

    def __init__(
        self, envs: Sequence[gym.Env], seeds: Iterable[int], *, max_steps: int | None = None, **options: Any
    ) -> None:
        """Start the first episodes.

        Args:
            envs: Environments, stepped together; they are not closed.
            seeds: One for each episode.
            max_steps: Steps after which an episode that has not ended is cut; None: never.
            options: See `Stepper`.
        """
        shared = enumerate(seeds)
        self.playing = [SeededEpisodes(env, shared, max_steps) for env in envs]
        makers = [lambda env=env: env for env in self.playing]
        mode = gym.vector.AutoresetMode.NEXT_STEP
        super().__init__(gym.vector.SyncVectorEnv(makers, autoreset_mode=mode), **options)

    def _idle(self) -> np.ndarray:
        return np.array([env.index is None for env in self.playing])

    def finished(self, ended: EpisodeEnds) -> dict[int, Episode]:
        """Return the episodes that ended in the newest step, by the index of their seed."""
        slots = np.flatnonzero(ended.ended)
        found = {}
        for slot, episode in zip(slots, episodes_of(ended), strict=True):
            playing = self.playing[slot]
            assert playing.index is not None  # an idle environment ends no episode
            found[playing.index] = CutEpisode(*episode) if playing.cut else episode
        return found


def random_stacks(env: gym.Env, *, frames: int, frame_stack: int | None, seed: int) -> np.ndarray:
    """Return stacks `[frames or more, H, W, K]` that a uniformly random policy sees in whole episodes.

    There are at most `2 * frames` stacks: a longer episode is not finished. Each episode's final observation is left
    out, as in TorchRL's `ObservationNorm.init_stats`.

    Args:
        env: Environment with discrete actions.
        frames: Lowest number of stacks.
        frame_stack: Frames per stack; None: no stacking.
        seed: Seed of the actions and the episodes.

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
        # Some environments never end an episode.
        if len(stacks) >= (frames if ended else 2 * frames):
            return np.stack(stacks)
        action = 0
        if not ended:
            stacks.append(stepper.cursor.stack[0])
            mask = stepper.cursor.mask
            allowed = None if mask is None or not mask[0].any() else np.flatnonzero(mask[0])
            action = int(rng.integers(num_actions) if allowed is None else rng.choice(allowed))
        stepper.step([action], frames=len(stacks))
