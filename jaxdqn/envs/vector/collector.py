"""Rows from a vector environment, step by step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from jaxdqn.envs.rows import EnvCursor, EpisodeEnds
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.envs.vector.episodes import Episode, episodes_of
from jaxdqn.envs.vector.snapshots import Snapshot, restore_envs, snapshot_envs
from jaxdqn.envs.vector.stepper import Stepper
from jaxdqn.envs.vector.workers import WorkerError
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
        self._how: dict[str, Any] = {"frame_stack": frame_stack, "reward_scale": reward_scale}
        self._seed, self._rebuild, self._restarts, self._in_a_row = seed, rebuild, 0, 0
        self._stepper = Stepper(envs, seeds=spawn_seeds(seed, envs.num_envs), **self._how)
        if snapshot is not None:
            self._stepper.cursor = EnvCursor(*(snapshot[_CURSOR + name] for name in EnvCursor._fields))
            rest = {name: values for name, values in snapshot.items() if not name.startswith(_CURSOR)}
            assert isinstance(envs, gym.vector.SyncVectorEnv)  # no other has snapshots
            restore_envs(envs, rest, self.cursor.last)

    @property
    def cursor(self) -> EnvCursor:
        """Where the environments stand."""
        return self._stepper.cursor

    def snapshot(self) -> Snapshot | None:
        """All that decides what comes next, as arrays; None where the environments cannot be saved."""
        envs = snapshot_envs(self._stepper.envs)
        if envs is None:
            return None
        return {**envs, **{_CURSOR + name: np.array(value) for name, value in self.cursor._asdict().items()}}

    def close(self) -> None:
        """Close the environments."""
        self._stepper.envs.close()

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
            row, ended = self._step(act, frames + step * self.num_envs)
            rows.append(row)
            episodes += episodes_of(ended)
        return Rows(*(np.stack(field) for field in zip(*rows, strict=True))), episodes

    def _step(self, act: Callable[[np.ndarray], np.ndarray], frames: int) -> tuple[Rows, EpisodeEnds]:
        actions = act(self.cursor.stack)
        try:
            result = self._stepper.step(actions, frames=frames)
        except WorkerError as error:
            if self._rebuild is None or self._in_a_row >= RESTARTS:
                raise
            return self._lose_episodes(actions, self._rebuild, error)
        self._in_a_row = 0
        return result

    def _lose_episodes(
        self, actions: np.ndarray, rebuild: Callable[[], gym.vector.VectorEnv], error: WorkerError
    ) -> tuple[Rows, EpisodeEnds]:
        self._restarts, self._in_a_row = self._restarts + 1, self._in_a_row + 1
        warnings.warn(f"{error}: all environments were built again", RuntimeWarning, stacklevel=2)
        cut = self._stepper.cut(actions)
        seeds = spawn_seeds(self._seed, self.num_envs * self._restarts, Purpose.RESUMING)
        self._stepper = Stepper(rebuild(), seeds=seeds[-self.num_envs :], **self._how)
        return cut
