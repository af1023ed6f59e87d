"""Step environments: training, evaluation, the random rollout and pictures all use this module.

Observations and rewards are checked (finite) and cast to the dtype of rows here. All actions have one dtype.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from jaxdqn.envs.atari import AtariGames
from jaxdqn.envs.gymnasium.making import describe_error
from jaxdqn.envs.gymnasium.wrappers import name_of
from jaxdqn.envs.rows import EnvCursor, EpisodeEnds, StepResult, advance, open_episodes
from jaxdqn.envs.vector.autoreset import next_step_autoreset
from jaxdqn.envs.vector.workers import WorkerError, WorkerVectorEnv
from jaxdqn.observations import storage_dtype
from jaxdqn.types import Rows

ACTION_DTYPE = np.int64
"""Dtype of every action that an environment receives, the same as that of gymnasium's `Discrete.sample`."""


ACTION_MASK = "action_mask"
"""Name in an environment's `info` of the mask of its allowed actions, the convention of gymnasium and PettingZoo."""

LIVES = "lives"
"""Name in an environment's `info` of the lives that are left, the convention of ale-py."""


def fault_of(error: BaseException) -> str | None:
    """Return a one-line message for an error that an environment raised in a step: which one, and at which frame.

    None for any other error.
    """
    return getattr(error, "_env_fault", None)


class Stepper:
    """A vector environment and its state between two steps.

    Attributes:
        envs: The environments, in `NEXT_STEP` autoreset mode.
        cursor: Their state between two steps.
    """

    def __init__(
        self,
        envs: gym.vector.VectorEnv,
        *,
        seeds: list[int] | None = None,
        frame_stack: int | None = None,
        reward_scale: float = 1.0,
        clip_rewards: bool = False,
        terminal_on_life_loss: bool = False,
        where: str = "",
    ) -> None:
        """Reset the environments.

        Args:
            envs: Vector environment; one in another autoreset mode than `NEXT_STEP` is converted.
            seeds: One for each environment; None if the environments have their own. A vector environment that takes a
                single seed, such as gymnasium's own of CartPole, gets the first.
            frame_stack: Frames per stack; None: no stacking.
            reward_scale: Factor on the rewards of rows; episodes report raw returns.
            clip_rewards: Whether the rewards of rows are clipped to [-1, 1], before the factor.
            terminal_on_life_loss: Whether a lost life counts as a terminal state in rows; the episode continues.
            where: Text after the frame in messages, such as " of an evaluation".

        Raises:
            FloatingPointError: If a first observation is not finite.
            ValueError: If the environments cannot be reset, their autoreset mode is unknown, their masks are wrong, or
                lives are needed and they give none.
        """
        self.envs = next_step_autoreset(envs)
        self._where = where
        self._rules: dict[str, Any] = {
            "frame_stack": frame_stack,
            "reward_scale": reward_scale,
            "clip_rewards": clip_rewards,
        }
        self._dtype = storage_dtype(envs.single_observation_space.dtype or np.float32)
        try:
            obs, infos = self.envs.reset(seed=self._seeds_for_envs(seeds))
        except (FloatingPointError, WorkerError):
            raise
        except Exception as error:  # for example a library for drawing that is missing
            raise ValueError(f"env {self._env_name()} cannot be used: {describe_error(error)}") from error
        self._masked = isinstance(infos, dict) and ACTION_MASK in infos
        self._lives = np.zeros(envs.num_envs) if terminal_on_life_loss else None
        self._lost_lives(infos)
        self.cursor = open_episodes(
            self._check_and_cast("first observation", obs, 0), frame_stack, self._mask_of(infos)
        )

    def step(self, actions: Any, *, frames: int = 0) -> tuple[Rows, EpisodeEnds]:
        """Step every environment once.

        Args:
            actions: One for each environment `[N]`.
            frames: Number of frames before this step, for messages.

        Returns:
            Rows without their time axis `[N, ...]`, and the episodes that ended.

        Raises:
            Exception: What an environment raises, with a note that names the environment. See `fault_of`.
            FloatingPointError: If an observation or a reward is not finite.
        """
        actions = np.asarray(actions).astype(ACTION_DTYPE)
        try:
            obs, reward, terminated, truncated, infos = self.envs.step(actions)
        except WorkerError:
            raise
        except FloatingPointError as error:
            raise FloatingPointError(f"{error} at frame {frames + 1:,}{self._where} or one of the next") from error
        except Exception as error:
            where = f"at frame {frames + 1:,}{self._where}, or one of the next {len(actions) - 1}"
            fault = f"env {self._env_name()} raised {type(error).__name__} {where}: {describe_error(error)}"
            # The loop is a generator, in which Python would turn StopIteration into its own RuntimeError.
            raised = RuntimeError(fault) if isinstance(error, StopIteration) else error
            raised._env_fault = fault  # type: ignore[attr-defined]
            if raised is not error:
                raise raised from error
            error.add_note(fault)
            raise
        # Copy: environments may write the results of the next step into the same arrays.
        reward, terminated, truncated = np.array(reward), np.array(terminated), np.array(truncated)
        mask = self._mask_of(infos, terminated)
        checked = self._check_and_cast("observation", obs, frames)
        life_lost = self._lost_lives(infos, terminated | self.cursor.last)
        step_result = StepResult(checked, reward, terminated, truncated, mask=mask, life_lost=life_lost)
        return self._advance(self.cursor, actions, step_result, frames)

    def cut(self, actions: Any) -> tuple[Rows, EpisodeEnds]:
        """Return a row that truncates the open episodes without a step; the next row starts new episodes."""
        now, zeros = self.cursor, np.zeros(len(self.cursor.last))
        step_result = StepResult(now.obs, zeros, zeros.astype(bool), zeros.astype(bool), mask=now.mask)
        return self._advance(now._replace(last=np.ones(len(zeros), bool)), np.asarray(actions), step_result, 0)

    def _mask_of(self, infos: Any, terminated: Any = False) -> np.ndarray | None:
        """Return the masks `[N, A]` of allowed actions; None if the environments have none.

        An environment may leave out the mask of a terminal state, in which no action is taken.

        Raises:
            ValueError: If only some calls give a mask, or it has another shape than `[N, A]`.
        """
        num_envs, num_actions = self.envs.num_envs, self.envs.single_action_space.n  # type: ignore[attr-defined]
        given = isinstance(infos, dict) and ACTION_MASK in infos
        # gymnasium collects the masks of its copies, with zeros for those that gave none, and says which gave one.
        gave = infos.get(f"_{ACTION_MASK}", np.ones(num_envs, bool)) if given else np.zeros(num_envs, bool)
        if gave.any() if not self._masked else not (gave | terminated | self._idle()).all():
            given_in, other = ("reset", "step") if self._masked else ("step", "reset")
            fault = f"gives info['action_mask'] in {given_in} and not in {other}: give it in both"
            raise ValueError(f"env {self._env_name()} {fault}")
        if not self._masked:
            return None
        mask = np.asarray(infos[ACTION_MASK]) if given else np.ones((num_envs, num_actions), bool)
        if mask.shape != (num_envs, num_actions):
            raise ValueError(f"env {self._env_name()} gives an action_mask {mask.shape[1:]} for {num_actions} actions")
        return (mask != 0) | ~gave[:, None]

    def _lost_lives(self, infos: Any, may_lack: Any = False) -> Any:
        """Return in which environments fewer lives are left than before `[N]`; False if they are not needed.

        Raises:
            ValueError: If an environment gives no lives, although no episode has ended there (`may_lack`).
        """
        if self._lives is None:
            return False
        given, before = isinstance(infos, dict) and LIVES in infos, self._lives
        # gymnasium collects the lives of its copies, with zeros for those that gave none, and says which gave them.
        gave = infos.get(f"_{LIVES}", np.ones(len(before), bool)) if given else np.zeros(len(before), bool)
        if not (gave | may_lack).all():
            raise ValueError(
                f"env {self._env_name()} gives no number info[{LIVES!r}]: set terminal_on_life_loss to False"
            )
        self._lives = np.where(gave, infos[LIVES], before) if given else before
        return self._lives < before

    def _idle(self) -> Any:
        """Return which environments are idle `[N]`: they give no mask."""
        return False

    def _seeds_for_envs(self, seeds: list[int] | None) -> Any:
        """Return the seeds for `envs.reset`: all of them, or the first if the environments take only one."""
        takes_list = (gym.vector.SyncVectorEnv, gym.vector.AsyncVectorEnv, WorkerVectorEnv, AtariGames)
        return seeds if isinstance(self.envs.unwrapped, takes_list) or not seeds else seeds[0]

    def _env_name(self) -> str:
        known = isinstance(self.envs, gym.vector.SyncVectorEnv)
        return name_of(self.envs.envs[0]) if known else type(self.envs).__name__  # type: ignore[attr-defined]

    def _advance(self, now: EnvCursor, actions: Any, step_result: StepResult, frames: int) -> tuple[Rows, EpisodeEnds]:
        with np.errstate(over="ignore"):  # a reward too large for float32 becomes infinite, and is refused below
            row, self.cursor, ended = advance(now, actions, step_result, **self._rules)
        check_finite("reward", row.reward, frames, self._where)
        return row, ended

    def _check_and_cast(self, name: str, obs: Any, frames: int) -> np.ndarray:
        check_finite(name, obs, frames, self._where)
        return np.array(obs, self._dtype)


def check_finite(name: str, values: Any, frames: int, where: str = "") -> None:
    """Raise a `FloatingPointError` that names the environment and the frame if a value `[N, ...]` is not finite."""
    if not np.issubdtype(values.dtype, np.floating):
        return
    with np.errstate(over="ignore"):
        values = np.asarray(values, np.float32)  # the dtype of rows, in which larger numbers become infinite
    if not np.isfinite(values).all():
        index = int(np.argwhere(~np.isfinite(values.reshape(len(values), -1)))[0, 0])
        of_env = values.reshape(len(values), -1)[index]
        value = of_env[~np.isfinite(of_env)][0]
        raise FloatingPointError(f"the {name} of environment {index} is {value} at frame {frames + index + 1:,}{where}")
