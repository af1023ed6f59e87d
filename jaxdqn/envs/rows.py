"""The one row format, step by step: what environments in lockstep answer becomes rows, on NumPy and on JAX alike.

step of the environments   ...  7        8 (ends)   9 (resets: its action is ignored)   10
row                        ...  obs 7    obs 8      the final observation, last          obs 0 of the next episode
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int, Shaped

from jaxdqn.preprocessing import array_namespace, next_stack
from jaxdqn.types import Rows


class EnvCursor(NamedTuple):
    """Where each environment stands between two steps: all of it that the next rows depend on.

    Attributes:
        obs: Newest observation `[N, ...]`.
        stack: What the agent sees: `[N, ..., K]` newest frames, or `obs` itself where nothing is stacked.
        last: Whether `obs` is the final one of its episode `[N]`.
        episode_step: Its index in its episode `[N]` int32.
        returns: Raw return of the open episodes `[N]`, float64 on NumPy and float32 on JAX.
    """

    obs: Shaped[Any, "N ..."]
    stack: Shaped[Any, "N ..."]
    last: Bool[Any, " N"]
    episode_step: Int[Any, " N"]
    returns: Float[Any, " N"]


class StepResult(NamedTuple):
    """What environments in `NEXT_STEP` autoreset mode answer to actions.

    Attributes:
        obs: Newest observation `[N, ...]`.
        reward: What the step gave `[N]`, raw.
        terminated: Whether it reached a terminal state `[N]`.
        truncated: Whether a time limit ended the episode `[N]`.
        valid: Whether `obs` is what the space allows `[N]`, where `obs` itself cannot say so.
    """

    obs: Shaped[Any, "N ..."]
    reward: Shaped[Any, " N"]
    terminated: Bool[Any, " N"]
    truncated: Bool[Any, " N"]
    valid: Bool[Any, " N"] | bool = True


class EpisodeEnds(NamedTuple):
    """Which episodes ended in a step, or in several `[T, N]`.

    Attributes:
        ended: Whether one ended `[N]`.
        raw_return: Its return `[N]`; of no meaning where none ended.
        length: Its steps `[N]` int32; of no meaning where none ended.
    """

    ended: Bool[Any, "*T N"]
    raw_return: Float[Any, "*T N"]
    length: Int[Any, "*T N"]


def open_episodes(obs: Shaped[Any, "N ..."], frame_stack: int | None) -> EnvCursor:
    """The cursor of environments that were reset.

    Args:
        obs: First observations.
        frame_stack: Frames to a stack; None hands observations on as they are.
    """
    xp = array_namespace(obs)
    num_envs = obs.shape[0]
    return EnvCursor(
        obs=obs,
        stack=next_stack(None, obs, xp.ones(num_envs, bool), frame_stack),
        last=xp.zeros(num_envs, bool),
        episode_step=xp.zeros(num_envs, xp.int32),
        returns=xp.zeros(num_envs, float),
    )


def advance(
    now: EnvCursor, actions: Int[Any, " N"], step_result: StepResult, *, frame_stack: int | None, reward_scale: float
) -> tuple[Rows, EnvCursor, EpisodeEnds]:
    """What one step of all environments leaves.

    After a final observation the environments ignore the action: that step is a reset, gives nothing and ends nothing,
    whatever they answer.

    Args:
        now: Where they stood.
        actions: What was done.
        step_result: What they answered.
        frame_stack: Frames to a stack; None hands observations on as they are.
        reward_scale: Factor on the rewards of rows; episodes report raw returns.

    Returns:
        Rows without their time axis `[N, ...]`, where the environments stand now, and the episodes that ended.
    """
    xp = array_namespace(now.last)
    live = ~now.last
    row = Rows(
        obs=now.obs,
        action=xp.asarray(actions, xp.int32),
        reward=xp.where(live, step_result.reward, 0.0).astype(xp.float32) * xp.float32(reward_scale),
        terminated=step_result.terminated & live,
        last=now.last,
        episode_step=now.episode_step,
    )
    returns = xp.where(live, now.returns + step_result.reward, 0.0)
    ended = (step_result.terminated | step_result.truncated) & live
    cursor = EnvCursor(
        obs=step_result.obs,
        stack=next_stack(now.stack, step_result.obs, now.last, frame_stack),
        last=ended,
        episode_step=xp.where(now.last, 0, now.episode_step + 1).astype(xp.int32),
        returns=returns,
    )
    return row, cursor, EpisodeEnds(ended, returns, now.episode_step + 1)
