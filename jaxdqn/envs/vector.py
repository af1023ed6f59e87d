"""Environments in lockstep, in the one row format: gymnasium's `NEXT_STEP` autoreset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from jaxdqn.envs.pixels import EnvFn
from jaxdqn.envs.rows import Answer, Cursor, Ended, advance, open_episodes
from jaxdqn.envs.seeds import spawn_seeds
from jaxdqn.envs.snapshots import Snapshot, restore_envs, snapshot_envs
from jaxdqn.envs.workers import WorkerVectorEnv
from jaxdqn.preprocessing import next_stack
from jaxdqn.types import Rows


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
        return WorkerVectorEnv(env_fn, num_envs)
    return gym.vector.SyncVectorEnv([env_fn] * num_envs, autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP)


class Episode(NamedTuple):
    """A finished episode: its raw return and its length in steps."""

    raw_return: float
    length: int


class Collector:
    """Steps a vector environment and turns what it sees into rows."""

    def __init__(
        self,
        envs: gym.vector.VectorEnv,
        *,
        seed: int,
        frame_stack: int | None = None,
        reward_scale: float = 1.0,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Reset the environments, or bring them to where others stood.

        Args:
            envs: Vector environment in `NEXT_STEP` mode.
            seed: Environment `i` is seeded with the `i`-th of the seeds spawned from it.
            frame_stack: Frames to a stack; None hands observations on as they are.
            reward_scale: Factor on the rewards of rows; episodes report raw returns.
            snapshot: What `snapshot` gave of others like them; None begins anew.

        Raises:
            ValueError: If the vector environment resets in another mode.
        """
        mode = envs.metadata.get("autoreset_mode")
        if mode != gym.vector.AutoresetMode.NEXT_STEP:
            raise ValueError(f"autoreset_mode {mode} is not NEXT_STEP: make the vector environment with it")
        self._envs = envs
        self.num_envs = envs.num_envs
        self._reward_scale = reward_scale
        self._frame_stack = frame_stack
        obs, _ = envs.reset(seed=spawn_seeds(seed, envs.num_envs))  # type: ignore[arg-type]  # a seed for each
        self.cursor = open_episodes(obs, frame_stack)
        if snapshot is not None:
            self.cursor = Cursor(*(snapshot[_CURSOR + name] for name in Cursor._fields))
            rest = {name: values for name, values in snapshot.items() if not name.startswith(_CURSOR)}
            assert isinstance(envs, gym.vector.SyncVectorEnv)  # no other has snapshots
            restore_envs(envs, rest, self.cursor.last)

    def snapshot(self) -> Snapshot | None:
        """All that decides what comes next, as arrays; None where the environments cannot be saved."""
        envs = snapshot_envs(self._envs)
        if envs is None:
            return None
        return {**envs, **{_CURSOR + name: np.array(value) for name, value in self.cursor._asdict().items()}}

    def collect(self, act: Callable[[np.ndarray], np.ndarray], num_steps: int) -> tuple[Rows, list[Episode]]:
        """Step every environment `num_steps` times.

        Args:
            act: From what the agent sees `[N, ...]` to actions `[N]`.
            num_steps: `T`.

        Returns:
            Rows `[T, N, ...]` and the episodes that ended in them.
        """
        rows, episodes = [], []
        for _ in range(num_steps):
            row, ended = self._step(act)
            rows.append(row)
            episodes += ended
        return Rows(*(np.stack(field) for field in zip(*rows, strict=True))), episodes

    def _step(self, act: Callable[[np.ndarray], np.ndarray]) -> tuple[Rows, list[Episode]]:
        actions = act(self.cursor.stack)
        answer = Answer(*self._envs.step(actions)[:4])
        row, self.cursor, ended = advance(
            self.cursor, actions, answer, frame_stack=self._frame_stack, reward_scale=self._reward_scale
        )
        return row, episodes_of(ended)


_CURSOR = "cursor."


def episodes_of(ended: Ended) -> list[Episode]:
    """The episodes that ended, in the order of time and then of environments; NumPy arrays."""
    places = np.nonzero(ended.ended)
    pairs = zip(ended.raw_return[places], ended.length[places], strict=True)
    return [Episode(float(raw_return), int(length)) for raw_return, length in pairs]


def random_stacks(env: gym.Env, *, frames: int, frame_stack: int, seed: int) -> np.ndarray:
    """Stacks `[frames or more, H, W, K]` of whole episodes of a uniformly random policy, at most twice the frames.

    Each episode's final observation is left out, as TorchRL's `ObservationNorm.init_stats` does.
    """
    rng = np.random.default_rng(seed)
    stacks: list[Any] = []
    num_actions = int(env.action_space.n)  # type: ignore[attr-defined]  # discrete, as `make_env_fn` has checked
    while len(stacks) < frames:
        obs, _ = env.reset(seed=int(rng.integers(2**31)))
        stack = next_stack(None, obs[None], np.ones(1, bool), frame_stack)
        done = False
        while not done and len(stacks) < 2 * frames:  # an environment need not end its episodes
            stacks.append(stack[0])
            obs, _, terminated, truncated, _ = env.step(int(rng.integers(num_actions)))
            stack = next_stack(stack, obs[None], np.zeros(1, bool), frame_stack)
            done = terminated or truncated
    return np.stack(stacks)
