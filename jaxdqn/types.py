"""The two records that modules exchange, with NumPy or JAX arrays; this module does not import JAX."""

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
        terminated: Whether the step reached a terminal state, whose value is 0 by definition.
        last: Whether this row holds the final observation of its episode (terminated or truncated).
        episode_step: Index of the row in its episode, from 0; it limits how far a stack looks back.
    """

    obs: Shaped[Any, "T N *obs"]
    action: Int[Any, "T N"]
    reward: Float[Any, "T N"]
    terminated: Bool[Any, "T N"]
    last: Bool[Any, "T N"]
    episode_step: Int[Any, "T N"]


class Batch(NamedTuple):
    """Transitions of up to `n_steps` steps, ready for the loss.

    Attributes:
        obs: Stacked observations at the start `[*B, ...]`, in the dtype of replay (uint8 for pixels).
        action: The first action, int32.
        reward: `sum_i gamma^i r_{t+i}` over `k` steps, float32.
        discount: `gamma^k`, and 0 if a terminal state was reached, float32.
        next_obs: Stacked observations after `k` steps, like `obs`.
    """

    obs: Shaped[Any, "*B_and_obs"]
    action: Int[Any, "*B"]
    reward: Float[Any, "*B"]
    discount: Float[Any, "*B"]
    next_obs: Shaped[Any, "*B_and_obs"]
