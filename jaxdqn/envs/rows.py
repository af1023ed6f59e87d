"""The row format of all loops: make rows from the steps of several environments, with NumPy or JAX.

step of the environments   ...  7        8 (ends)   9 (resets: its action is ignored)   10
row                        ...  obs 7    obs 8      the final observation, last          obs 0 of the next episode
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int, Shaped

from jaxdqn.preprocessing import array_namespace, next_stack
from jaxdqn.types import Rows


class EnvCursor(NamedTuple):
    """What rows need beside the environment's own state, between two steps.

    Attributes:
        obs: Newest observation `[N, ...]`.
        stack: What the agent sees: the newest `K` frames `[N, ..., K]`, or `obs` itself without stacking.
        last: Whether `obs` is the final one of its episode `[N]`.
        episode_step: Index of `obs` in its episode `[N]` int32.
        returns: Raw return of the open episodes `[N]`, float64 in NumPy and float32 in JAX.
        mask: Which actions are allowed at `obs` `[N, A]`; None: every action, always.
    """

    obs: Shaped[Any, "N ..."]
    stack: Shaped[Any, "N ..."]
    last: Bool[Any, " N"]
    episode_step: Int[Any, " N"]
    returns: Float[Any, " N"]
    mask: Bool[Any, "N A"] | None = None

    @property
    def seen(self) -> tuple[Any, ...]:
        """What a policy is called with: the stack, and the mask if there is one."""
        return (self.stack,) if self.mask is None else (self.stack, self.mask)


class StepResult(NamedTuple):
    """The result of one step of environments in `NEXT_STEP` autoreset mode.

    Attributes:
        obs: Newest observation `[N, ...]`.
        reward: Raw reward `[N]`.
        terminated: Whether the step reached a terminal state `[N]`.
        truncated: Whether a time limit ended the episode `[N]`.
        valid: Whether the space allows `obs` `[N]`, for observations that do not show it. See `FunctionalEnv`.
        mask: Which actions are allowed at `obs` `[N, A]`; None: every action, always.
        life_lost: Whether a life was lost `[N]`: a terminal state for learning, after which the episode continues.
    """

    obs: Shaped[Any, "N ..."]
    reward: Shaped[Any, " N"]
    terminated: Bool[Any, " N"]
    truncated: Bool[Any, " N"]
    valid: Bool[Any, " N"] | bool = True
    mask: Bool[Any, "N A"] | None = None
    life_lost: Bool[Any, " N"] | bool = False


class EpisodeEnds(NamedTuple):
    """Which episodes ended in a step `[N]`, or in several `[T, N]`.

    Attributes:
        ended: Whether an episode ended `[N]`.
        raw_return: Return of the episode up to this step `[N]`; its whole return if it ended.
        length: Number of its steps so far `[N]` int32.
    """

    ended: Bool[Any, "*T N"]
    raw_return: Float[Any, "*T N"]
    length: Int[Any, "*T N"]


def open_episodes(
    obs: Shaped[Any, "N ..."], frame_stack: int | None, mask: Bool[Any, "N A"] | None = None
) -> EnvCursor:
    """Return the cursor of environments that were just reset.

    Args:
        obs: First observations `[N, ...]`.
        frame_stack: Frames per stack; None: no stacking.
        mask: Which actions are allowed; None: every action, always.
    """
    xp = array_namespace(obs)
    num_envs = obs.shape[0]
    return EnvCursor(
        obs=obs,
        stack=next_stack(None, obs, xp.ones(num_envs, bool), frame_stack),
        last=xp.zeros(num_envs, bool),
        episode_step=xp.zeros(num_envs, xp.int32),
        returns=xp.zeros(num_envs, float),
        mask=mask,
    )


def advance(
    now: EnvCursor,
    actions: Int[Any, " N"],
    step_result: StepResult,
    *,
    frame_stack: int | None,
    reward_scale: float = 1.0,
    clip_rewards: bool = False,
) -> tuple[Rows, EnvCursor, EpisodeEnds]:
    """Make the rows of one step of all environments.

    After a final observation an environment ignores the action and resets. Such a step gives no reward and ends no
    episode; its reward and flags in `step_result` are ignored.

    Args:
        now: Cursor before the step.
        actions: Actions of the step `[N]`.
        step_result: Result of the step.
        frame_stack: Frames per stack; None: no stacking.
        reward_scale: Factor on the rewards of rows; episodes report raw returns.
        clip_rewards: Whether the rewards of rows are clipped to [-1, 1], before the factor.

    Returns:
        Rows without their time axis `[N, ...]`, the cursor after the step, and the episodes that ended.
    """
    xp = array_namespace(now.last)
    live = ~now.last
    reward = xp.where(live, step_result.reward, 0.0)
    if clip_rewards:  # an infinite one stays, so that it is found
        reward = xp.where(xp.isfinite(reward), xp.clip(reward, -1.0, 1.0), reward)
    row = Rows(
        obs=now.obs,
        action=xp.asarray(actions, xp.int32),
        reward=reward.astype(xp.float32) * xp.float32(reward_scale),
        terminated=(step_result.terminated | step_result.life_lost) & live,
        last=now.last,
        episode_step=now.episode_step,
        mask=now.mask,
    )
    returns = xp.where(live, now.returns + step_result.reward, 0.0)
    ended = (step_result.terminated | step_result.truncated) & live
    cursor = EnvCursor(
        obs=step_result.obs,
        stack=next_stack(now.stack, step_result.obs, now.last, frame_stack),
        last=ended,
        episode_step=xp.where(now.last, 0, now.episode_step + 1).astype(xp.int32),
        returns=returns,
        mask=step_result.mask,
    )
    return row, cursor, EpisodeEnds(ended, returns, now.episode_step + 1)
