"""Collect rows from a vector environment."""

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
"""How often environments are built again without a successful step in between, before a failure is raised."""

_CURSOR = "cursor."


class Collector:
    """Step a vector environment and collect the rows."""

    def __init__(
        self,
        envs: gym.vector.VectorEnv,
        *,
        seed: int,
        frame_stack: int | None = None,
        reward_scale: float = 1.0,
        clip_rewards: bool = False,
        terminal_on_life_loss: bool = False,
        snapshot: Snapshot | None = None,
        rebuild: Callable[[], gym.vector.VectorEnv] | None = None,
    ) -> None:
        """Reset the environments, or restore a snapshot.

        Args:
            envs: Vector environment; one in another autoreset mode than `NEXT_STEP` is converted.
            seed: Environment `i` gets the `i`-th of the seeds spawned from this one.
            frame_stack: Frames per stack; None: no stacking.
            reward_scale: Factor on the rewards of rows; episodes report raw returns.
            clip_rewards: Whether the rewards of rows are clipped to [-1, 1], before the factor.
            terminal_on_life_loss: Whether a lost life counts as a terminal state in rows; the episode continues.
            snapshot: Result of `snapshot` of environments built in the same way; None starts from scratch.
            rebuild: Builds the environments again if a worker fails; None raises the worker's error.

        Raises:
            ValueError: If the autoreset mode is unknown, or lives are needed and the environments give none.
        """
        self.num_envs = envs.num_envs
        self._stepper_options: dict[str, Any] = {
            "frame_stack": frame_stack,
            "reward_scale": reward_scale,
            "clip_rewards": clip_rewards,
            "terminal_on_life_loss": terminal_on_life_loss,
        }
        self._seed, self._rebuild, self._restarts, self._restarts_in_a_row = seed, rebuild, 0, 0
        self._stepper = Stepper(envs, seeds=spawn_seeds(seed, envs.num_envs), **self._stepper_options)
        if snapshot is not None:
            self._stepper.cursor = EnvCursor(*(snapshot.get(_CURSOR + name) for name in EnvCursor._fields))
            rest = {name: values for name, values in snapshot.items() if not name.startswith(_CURSOR)}
            assert isinstance(envs, gym.vector.SyncVectorEnv)  # no other type has snapshots
            restore_envs(envs, rest, self.cursor.last)

    @property
    def cursor(self) -> EnvCursor:
        """The state of the environments between two steps."""
        return self._stepper.cursor

    def snapshot(self) -> Snapshot | None:
        """Return everything that determines the next rows, as arrays; None if the environments cannot be saved."""
        envs = snapshot_envs(self._stepper.envs)
        if envs is None:
            return None
        cursor = {name: value for name, value in self.cursor._asdict().items() if value is not None}
        return {**envs, **{_CURSOR + name: np.array(value) for name, value in cursor.items()}}

    def close(self) -> None:
        """Close the environments."""
        self._stepper.envs.close()

    def collect(self, act: Callable[..., np.ndarray], num_steps: int, *, frames: int = 0) -> tuple[Rows, list[Episode]]:
        """Step every environment `num_steps` times.

        Args:
            act: Policy, from what the agent sees `[N, ...]` to actions `[N]`. If the environments have masks, these
                `[N, A]` are its second argument.
            num_steps: Number of steps `T`.
            frames: Number of frames before these rows, for messages.

        Returns:
            Rows `[T, N, ...]` and the episodes that ended in them.

        Raises:
            FloatingPointError: If an observation or a reward is not finite.
            WorkerError: If a worker fails and `rebuild` is None, or it fails again after `RESTARTS` restarts in a row.
        """
        rows, episodes = [], []
        for step in range(num_steps):
            row, ended = self._step(act, frames + step * self.num_envs)
            rows.append(row)
            episodes += episodes_of(ended)
        fields = zip(*rows, strict=True)
        return Rows(*(None if field[0] is None else np.stack(field) for field in fields)), episodes

    def _step(self, act: Callable[..., np.ndarray], frames: int) -> tuple[Rows, EpisodeEnds]:
        actions = act(*self.cursor.seen)
        try:
            result = self._stepper.step(actions, frames=frames)
        except WorkerError as error:
            if self._rebuild is None or self._restarts_in_a_row >= RESTARTS:
                raise
            return self._restart_after(actions, self._rebuild, error)
        self._restarts_in_a_row = 0
        return result

    def _restart_after(
        self, actions: np.ndarray, rebuild: Callable[[], gym.vector.VectorEnv], error: WorkerError
    ) -> tuple[Rows, EpisodeEnds]:
        """Build all environments again, and return the row that truncates the lost episodes."""
        self._restarts, self._restarts_in_a_row = self._restarts + 1, self._restarts_in_a_row + 1
        warnings.warn(f"{error}: all environments were built again", RuntimeWarning, stacklevel=2)
        cut = self._stepper.cut(actions)
        seeds = spawn_seeds(self._seed, self.num_envs * self._restarts, Purpose.RESUMING)
        self._stepper = Stepper(rebuild(), seeds=seeds[-self.num_envs :], **self._stepper_options)
        return cut
