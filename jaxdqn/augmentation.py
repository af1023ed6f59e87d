"""Augmentation of sampled frames: what replay does not hold, but could have."""

from __future__ import annotations

from math import prod

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Shaped

from jaxdqn.types import Batch


def augment_batch(
    key: Key[Array, ""], batch: Batch, *, random_shift: int = 0, mirror: bool = False, num_actions: int
) -> Batch:
    """`shift_batch` and `mirror_batch`, as the fields of `Config` of these names say.

    Args:
        key: Random key; consumed.
        batch: Transitions.
        random_shift: Largest shift in pixels; 0 leaves frames where they are.
        mirror: Whether half of the transitions are mirrored.
        num_actions: Number of discrete actions.
    """
    shift_key, mirror_key = jax.random.split(key)
    if random_shift:
        batch = shift_batch(shift_key, batch, random_shift)
    if mirror:
        batch = mirror_batch(mirror_key, batch, num_actions)
    return batch


def random_shift(key: Key[Array, ""], stacks: Shaped[Array, "*B H W K"], pixels: int) -> Shaped[Array, "*B H W K"]:
    """Shift each stack of frames sideways, by a whole number of pixels drawn uniformly from -pixels to pixels.

    The column at the edge is repeated where there is nothing left to show.

    Args:
        key: Random key; consumed.
        stacks: Frames `[..., H, W, K]` of any dtype; all frames of a stack move together.
        pixels: Largest shift.

    Returns:
        Stacks of the same shape and dtype.

    Raises:
        ValueError: If `pixels` is negative or `stacks` are not stacked frames.

    References:
        Kostrikov, Yarats and Fergus, Image Augmentation Is All You Need (2021), section 3, who shift along both axes.
    """
    if pixels < 0:
        raise ValueError(f"random_shift {pixels} must be 0 or above")
    if stacks.ndim < 3:
        raise ValueError(f"random_shift takes stacks of frames [..., H, W, K], got shape {stacks.shape}")
    *batch, height, width, frames = stacks.shape
    shift = jax.random.randint(key, (prod(batch), 1), -pixels, pixels + 1)
    columns = jnp.clip(jnp.arange(width) + shift, 0, width - 1)
    shifted = jax.vmap(lambda stack, where: stack[:, where])(stacks.reshape(-1, height, width, frames), columns)
    return shifted.reshape(stacks.shape)


def shift_batch(key: Key[Array, ""], batch: Batch, pixels: int) -> Batch:
    """Transitions shifted sideways, each as a whole: its first and its last observation by the same pixels.

    A transition that is shifted as a whole could have happened a little to the side, where the environment is the same
    there; with a shift of its own for each end, as Kostrikov et al. have it, the value of one place is learned from
    that of another. Neither holds at a border that ends episodes: the last `pixels` before it are blurred.

    Args:
        key: Random key; consumed.
        batch: Transitions whose observations are stacks of frames `[..., H, W, K]`, of any dtype.
        pixels: Largest shift.

    Returns:
        The batch with `obs` and `next_obs` shifted; all else is left as it is.

    Raises:
        ValueError: If `pixels` is negative or observations are no stacks of frames.
    """
    # The same key and the same shape draw the same shifts.
    return batch._replace(obs=random_shift(key, batch.obs, pixels), next_obs=random_shift(key, batch.next_obs, pixels))


def mirror_batch(key: Key[Array, ""], batch: Batch, num_actions: int) -> Batch:
    """Transitions of which each, with probability 1/2, is replaced by its mirror image.

    Frames are turned left to right and action `a` becomes `num_actions - 1 - a`. Where left and right are alike and
    actions are ordered from one side to the other, as in CartPole, the image is a transition of the same environment:
    it doubles what is known of every fall, and leaves no side that has been seen less.

    Args:
        key: Random key; consumed.
        batch: Transitions whose observations are stacks of frames `[..., H, W, K]`, of any dtype.
        num_actions: Number of discrete actions.

    Returns:
        The batch with `obs`, `action` and `next_obs` mirrored where the coin fell so.

    Raises:
        ValueError: If observations are no stacks of frames.

    References:
        van der Pol et al., MDP Homomorphic Networks: Group Symmetries in Reinforcement Learning (2020), who
        build this symmetry of CartPole into the network; Lin et al., Invariant Transform Experience Replay (2020).
    """
    if batch.obs.ndim != batch.action.ndim + 3:
        raise ValueError(f"mirror needs stacks of frames [..., H, W, K], not {batch.obs.shape}")
    mirrored = jax.random.bernoulli(key, 0.5, batch.action.shape)

    def turn(stacks: Shaped[Array, "*B H W K"]) -> Shaped[Array, "*B H W K"]:
        return jnp.where(mirrored[..., None, None, None], stacks[..., ::-1, :], stacks)

    action = jnp.where(mirrored, num_actions - 1 - batch.action, batch.action)
    return batch._replace(obs=turn(batch.obs), action=action, next_obs=turn(batch.next_obs))
