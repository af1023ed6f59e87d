"""One way to step environments: training, evaluation, the random rollout and pictures all use it.

What an environment answers is checked and cast here, once: the dtype that rows hold, finite numbers. All actions are of
one type.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from jaxdqn.envs.gymnasium.making import in_words
from jaxdqn.envs.gymnasium.wrappers import name_of
from jaxdqn.envs.rows import EnvCursor, EpisodeEnds, StepResult, advance, open_episodes
from jaxdqn.envs.vector.autoreset import next_step_autoreset
from jaxdqn.envs.vector.workers import WorkerError, WorkerVectorEnv
from jaxdqn.observations import storage_dtype
from jaxdqn.types import Rows

ACTION_DTYPE = np.int64
"""Of every action that an environment is given: that of gymnasium's `Discrete.sample`."""


def fault_of(error: BaseException) -> str | None:
    """What to say of an error that an environment raised in a step: which one, and where; None of any other error."""
    return getattr(error, "_env_fault", None)


class Stepper:
    """A vector environment, and where it stands.

    Attributes:
        envs: The environments, in `NEXT_STEP` autoreset mode.
        cursor: Where they stand.
    """

    def __init__(
        self,
        envs: gym.vector.VectorEnv,
        *,
        seeds: list[int] | None = None,
        frame_stack: int | None = None,
        reward_scale: float = 1.0,
        where: str = "",
    ) -> None:
        """Reset the environments.

        Args:
            envs: Vector environment; one that resets in another mode than `NEXT_STEP` is translated.
            seeds: One for each environment; None where they know their own. Vector environments that take a single
                one, as gymnasium's own of CartPole do, get the first.
            frame_stack: Frames to a stack; None hands observations on as they are.
            reward_scale: Factor on the rewards of rows; episodes report raw returns.
            where: What a frame is counted in, for messages that name one: " of an evaluation".

        Raises:
            FloatingPointError: If a first observation is not finite.
            ValueError: If the environments cannot be reset, or reset in a mode that is not known.
        """
        self.envs = next_step_autoreset(envs)
        self._frame_stack, self._reward_scale, self._where = frame_stack, reward_scale, where
        self._dtype = storage_dtype(envs.single_observation_space.dtype or np.float32)
        try:
            obs, _ = self.envs.reset(seed=self._taken(seeds))
        except (FloatingPointError, WorkerError):
            raise
        except Exception as error:  # what drawing needs, say, is missed only when it draws
            raise ValueError(f"env {self._name()} cannot be used: {in_words(error)}") from error
        self.cursor = open_episodes(self._checked("first observation", obs, 0), frame_stack)

    def step(self, actions: Any, *, frames: int = 0) -> tuple[Rows, EpisodeEnds]:
        """Step every environment once.

        Args:
            actions: One for each `[N]`.
            frames: Rows collected before, for messages.

        Returns:
            Rows without their time axis `[N, ...]`, and the episodes that ended.

        Raises:
            Exception: What an environment raises, with a note that names it; `fault_of` then tells it in one line.
            FloatingPointError: If an observation or a reward is not finite.
        """
        actions = np.asarray(actions).astype(ACTION_DTYPE)
        try:
            obs, reward, terminated, truncated, _ = self.envs.step(actions)
        except WorkerError:
            raise
        except FloatingPointError as error:
            raise FloatingPointError(f"{error} at frame {frames + 1:,}{self._where} or one of the next") from error
        except Exception as error:
            where = f"at frame {frames + 1:,}{self._where}, or one of the next {len(actions) - 1}"
            fault = f"env {self._name()} raised {type(error).__name__} {where}: {in_words(error)}"
            # StopIteration would be Python's own RuntimeError in the loop, which is a generator.
            told = RuntimeError(fault) if isinstance(error, StopIteration) else error
            told._env_fault = fault  # type: ignore[attr-defined]
            if told is not error:
                raise told from error
            error.add_note(fault)
            raise
        # Copies: environments may write the next step's into the same arrays.
        reward, terminated, truncated = np.array(reward), np.array(terminated), np.array(truncated)
        step_result = StepResult(self._checked("observation", obs, frames), reward, terminated, truncated)
        return self._advance(self.cursor, actions, step_result, frames)

    def cut(self, actions: Any) -> tuple[Rows, EpisodeEnds]:
        """A row in which the open episodes are truncated, with no step: what comes after it is another episode."""
        now, nothing = self.cursor, np.zeros(len(self.cursor.last))
        step_result = StepResult(now.obs, nothing, nothing.astype(bool), nothing.astype(bool))
        return self._advance(now._replace(last=np.ones(len(nothing), bool)), np.asarray(actions), step_result, 0)

    def _taken(self, seeds: list[int] | None) -> Any:
        """Seeds as the environments take them."""
        each = isinstance(self.envs.unwrapped, gym.vector.SyncVectorEnv | gym.vector.AsyncVectorEnv | WorkerVectorEnv)
        return seeds if each or not seeds else seeds[0]

    def _name(self) -> str:
        known = isinstance(self.envs, gym.vector.SyncVectorEnv)
        return name_of(self.envs.envs[0]) if known else type(self.envs).__name__  # type: ignore[attr-defined]

    def _advance(self, now: EnvCursor, actions: Any, step_result: StepResult, frames: int) -> tuple[Rows, EpisodeEnds]:
        with np.errstate(over="ignore"):  # a reward that float32 cannot hold is infinite there, and refused below
            row, self.cursor, ended = advance(
                now, actions, step_result, frame_stack=self._frame_stack, reward_scale=self._reward_scale
            )
        check_finite("reward", row.reward, frames, self._where)
        return row, ended

    def _checked(self, name: str, obs: Any, frames: int) -> np.ndarray:
        check_finite(name, obs, frames, self._where)
        return np.array(obs, self._dtype)


def check_finite(name: str, values: Any, frames: int, where: str = "") -> None:
    """Raise `FloatingPointError` that names the environment and the frame, if a value `[N, ...]` is not finite."""
    if not np.issubdtype(values.dtype, np.floating):
        return
    with np.errstate(over="ignore"):
        values = np.asarray(values, np.float32)  # as rows hold it: a larger number is none there
    if not np.isfinite(values).all():
        index = int(np.argwhere(~np.isfinite(values.reshape(len(values), -1)))[0, 0])
        value = values.reshape(len(values), -1)[index]
        worst = value[~np.isfinite(value)][0]
        raise FloatingPointError(f"the {name} of environment {index} is {worst} at frame {frames + index + 1:,}{where}")
