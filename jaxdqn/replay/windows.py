"""Read windows from a ring: stacks of frames, and n-step returns."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from jaxdqn.preprocessing import join_frames
from jaxdqn.returns import NStepReturn
from jaxdqn.types import Batch, Rows


def read_window(
    rows: Rows,
    slot: Int[Array, ""],
    env: Int[Array, ""],
    *,
    n_steps: int,
    gamma: float,
    stack: int | None,
    returns: NStepReturn,
) -> Batch:
    """Return the transition of up to `n_steps` steps that starts at one row; requires `can_start`."""
    slots = rows.action.shape[0]
    ahead = (slot + jnp.arange(n_steps)) % slots
    reward, discount, steps = returns(
        rows.reward[ahead, env], rows.terminated[ahead, env], rows.last[(ahead + 1) % slots, env], gamma
    )
    after = (slot + steps) % slots
    return Batch(
        obs=read_stack(rows, slot, env, stack),
        action=rows.action[slot, env],
        reward=reward,
        discount=discount,
        next_obs=read_stack(rows, after, env, stack),
        mask=None if rows.mask is None else rows.mask[slot, env],
        next_mask=None if rows.mask is None else rows.mask[after, env],
    )


def read_stack(rows: Rows, slot: Int[Array, ""], env: Int[Array, ""], stack: int | None) -> Shaped[Array, "*obs"]:
    """Return the observation of one row, with the frames before it if `stack` is given.

    Before the start of an episode its first frame is repeated, as it is when the agent acts.
    """
    (slots, num_envs), obs_shape = rows.obs.shape[:2], rows.obs.shape[2:]
    # Flat indices that are always in bounds, so that XLA moves the many bytes without checking indices.
    frames = rows.obs.reshape(slots * num_envs, *obs_shape).at
    if stack is None:
        return frames[slot * num_envs + env].get(mode="promise_in_bounds")
    back = jnp.minimum(jnp.arange(stack - 1, -1, -1), rows.episode_step[slot, env])
    indices = (slot - back) % slots * num_envs + env
    return join_frames(frames[indices].get(mode="promise_in_bounds"), len(obs_shape))
