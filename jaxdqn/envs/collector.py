"""Rows from a vector environment, step by step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from jaxdqn.envs.autoreset import next_step_autoreset
from jaxdqn.envs.rows import Answer, Cursor, Ended, advance, open_episodes
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.envs.snapshots import Snapshot, restore_envs, snapshot_envs
from jaxdqn.envs.vector import Episode, episodes_of
from jaxdqn.envs.workers import WorkerError
from jaxdqn.types import Rows

RESTARTS = 3
"""Times that environments are built again without a step of theirs in between, before that is given up."""

_CURSOR = "cursor."


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
        rebuild: Callable[[], gym.vector.VectorEnv] | None = None,
    ) -> None:
        """Reset the environments, or bring them to where others stood.

        Args:
            envs: Vector environment; one that resets in another mode than `NEXT_STEP` is translated.
            seed: Environment `i` is seeded with the `i`-th of the seeds spawned from it.
            frame_stack: Frames to a stack; None hands observations on as they are.
            reward_scale: Factor on the rewards of rows; episodes report raw returns.
            snapshot: What `snapshot` gave of others like them; None begins anew.
            rebuild: Builds them again where a worker fails; None raises what it raised.

        Raises:
            ValueError: If the vector environment resets in a mode that is not known.
        """
        self.num_envs = envs.num_envs
        self._reward_scale = reward_scale
        self._frame_stack = frame_stack
        self._seed, self._rebuild, self._restarts, self._in_a_row = seed, rebuild, 0, 0
        self.cursor = self._open(envs, spawn_seeds(seed, envs.num_envs))
        if snapshot is not None:
            self.cursor = Cursor(*(snapshot[_CURSOR + name] for name in Cursor._fields))
            rest = {name: values for name, values in snapshot.items() if not name.startswith(_CURSOR)}
            assert isinstance(envs, gym.vector.SyncVectorEnv)  # no other has snapshots
            restore_envs(envs, rest, self.cursor.last)

    def _open(self, envs: gym.vector.VectorEnv, seeds: list[int]) -> Cursor:
        self._envs = next_step_autoreset(envs)
        obs, _ = self._envs.reset(seed=seeds)  # type: ignore[arg-type]  # a seed for each
        refuse_not_finite("first observation", obs, 0)
        return open_episodes(obs, self._frame_stack)

    def snapshot(self) -> Snapshot | None:
        """All that decides what comes next, as arrays; None where the environments cannot be saved."""
        envs = snapshot_envs(self._envs)
        if envs is None:
            return None
        return {**envs, **{_CURSOR + name: np.array(value) for name, value in self.cursor._asdict().items()}}

    def close(self) -> None:
        """Close the environments."""
        self._envs.close()

    def collect(
        self, act: Callable[[np.ndarray], np.ndarray], num_steps: int, *, frames: int = 0
    ) -> tuple[Rows, list[Episode]]:
        """Step every environment `num_steps` times.

        Args:
            act: From what the agent sees `[N, ...]` to actions `[N]`.
            num_steps: `T`.
            frames: Rows collected before, for messages.

        Returns:
            Rows `[T, N, ...]` and the episodes that ended in them.

        Raises:
            FloatingPointError: If an observation or a reward is not finite.
            WorkerError: If a worker fails, and is not to be built again.
        """
        rows, episodes = [], []
        for step in range(num_steps):
            row, ended = self._step(act)
            for name, values in (("reward", row.reward), ("observation", self.cursor.obs)):
                refuse_not_finite(name, values, frames + step * self.num_envs)
            rows.append(row)
            episodes += episodes_of(ended)
        return Rows(*(np.stack(field) for field in zip(*rows, strict=True))), episodes

    def _step(self, act: Callable[[np.ndarray], np.ndarray]) -> tuple[Rows, Ended]:
        actions = act(self.cursor.stack)
        try:
            answer = Answer(*self._envs.step(actions)[:4])
        except WorkerError as error:
            if self._rebuild is None or self._in_a_row >= RESTARTS:
                raise
            return self._lose_episodes(actions, self._rebuild, error)
        self._in_a_row = 0
        row, self.cursor, ended = advance(
            self.cursor, actions, answer, frame_stack=self._frame_stack, reward_scale=self._reward_scale
        )
        return row, ended

    def _lose_episodes(
        self, actions: np.ndarray, rebuild: Callable[[], gym.vector.VectorEnv], error: WorkerError
    ) -> tuple[Rows, Ended]:
        """A row in which the open episodes are truncated, as what comes after it is another episode."""
        self._restarts, self._in_a_row = self._restarts + 1, self._in_a_row + 1
        warnings.warn(f"{error}: all environments were built again", RuntimeWarning, stacklevel=2)
        now, nothing = self.cursor, np.zeros(self.num_envs)
        row, _, ended = advance(
            now._replace(last=np.ones(self.num_envs, bool)),
            actions,
            Answer(now.obs, nothing, nothing.astype(bool), nothing.astype(bool)),
            frame_stack=self._frame_stack,
            reward_scale=self._reward_scale,
        )
        seeds = spawn_seeds(self._seed, self.num_envs * self._restarts, Purpose.RESUMING)
        self.cursor = self._open(rebuild(), seeds[-self.num_envs :])
        return row, ended


def refuse_not_finite(name: str, values: Any, frames: int) -> None:
    """Raise `FloatingPointError` that names the environment and the frame, where a value `[N, ...]` is not finite."""
    if not np.issubdtype(values.dtype, np.floating):
        return
    with np.errstate(over="ignore"):
        values = np.asarray(values, np.float32)  # as rows hold it: a larger number is none there
    if not np.isfinite(values).all():
        index = int(np.argwhere(~np.isfinite(values.reshape(len(values), -1)))[0, 0])
        value = values.reshape(len(values), -1)[index]
        worst = value[~np.isfinite(value)][0]
        raise FloatingPointError(f"the {name} of environment {index} is {worst} at frame {frames + index + 1:,}")
