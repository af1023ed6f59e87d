"""The records that modules exchange, with NumPy or JAX arrays; this module does not import JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped


class Rows(NamedTuple):
    """`T` steps of `N` environments in lockstep, one row per step.

    The format is that of gymnasium's `NEXT_STEP` autoreset: an episode of `k` transitions has `k + 1` rows.
    The last row holds the true final observation; the environment ignored its action, its reward is 0, and it
    is never the start of a transition.

    Attributes:
        obs: Observation before the action; for pixels one frame, not a stack.
        action: The action taken, in `[0, num_actions)`.
        reward: Reward of the step, scaled for learning.
        terminated: Whether the step reached a terminal state, whose value is 0 by definition, or lost a life that
            counts as one: its episode then continues in the next row.
        last: Whether this row holds the final observation of its episode (terminated or truncated).
        episode_step: Index of the row in its episode, from 0; it limits how far a stack looks back.
        mask: Which actions are allowed at `obs`; None: every action, in every row.
    """

    obs: Shaped[Any, "T N *obs"]
    action: Int[Any, "T N"]
    reward: Float[Any, "T N"]
    terminated: Bool[Any, "T N"]
    last: Bool[Any, "T N"]
    episode_step: Int[Any, "T N"]
    mask: Bool[Any, "T N A"] | None = None


class Batch(NamedTuple):
    """Transitions of up to `n_steps` steps, ready for the loss.

    Attributes:
        obs: Stacked observations at the start `[*B, ...]`, in the dtype of replay (uint8 for pixels).
        action: The first action, int32.
        reward: `sum_i gamma^i r_{t+i}` over `k` steps, float32.
        discount: `gamma^k`, and 0 if a terminal state was reached, float32.
        next_obs: Stacked observations after `k` steps, like `obs`.
        mask: Which actions are allowed at `obs`; None: every action.
        next_mask: The same at `next_obs`.
    """

    obs: Shaped[Any, "*B_and_obs"]
    action: Int[Any, "*B"]
    reward: Float[Any, "*B"]
    discount: Float[Any, "*B"]
    next_obs: Shaped[Any, "*B_and_obs"]
    mask: Bool[Any, "*B A"] | None = None
    next_mask: Bool[Any, "*B A"] | None = None


class Sample(NamedTuple):
    """Transitions drawn from replay, and how they were drawn.

    Attributes:
        batch: The transitions.
        index: Row in the ring that each starts at, `slot * num_envs + env`, int32; None if made by hand.
        weight: Importance weight of each, float32, not yet divided by the largest of the batch: 1 where every row is
            drawn with the same probability. None: all 1.
    """

    batch: Batch
    index: Int[Any, "*B"] | None = None  # type: ignore[assignment]  # it hides tuple.index, which nobody needs
    weight: Float[Any, "*B"] | None = None


class QOutputs(NamedTuple):
    """What a network returns for a batch of observations. Acting and evaluation read `q_values` only.

    Attributes:
        q_values: Action values, float32. For a distribution its mean.
        dist: Distribution of each action's return: logits of a categorical one (C51), or quantiles (QR-DQN, IQN). None:
            the network estimates the mean only.
        taus: Fractions of which `dist` holds the quantiles, in (0, 1). None: `dist` holds no quantiles.
    """

    q_values: Float[Any, "B A"]
    dist: Float[Any, "B A M"] | None = None
    taus: Float[Any, "B M"] | None = None
