"""Augmentation of sampled frames: what replay does not hold, but could have."""

from __future__ import annotations

from math import prod

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Shaped

from jaxdqn.types import Batch


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
    """A batch whose windows are shifted, each as a whole: its first and its last observation by the same pixels.

    A window that is shifted as a whole could have happened a little to the side, where the environment is the same
    there; with a shift of its own for each end, as Kostrikov et al. have it, the value of one place is learned from
    that of another. Neither holds at a border that ends episodes: the last `pixels` before it are blurred.

    Args:
        key: Random key; consumed.
        batch: Transitions whose observations are stacks of frames `[..., H, W, K]`.
        pixels: Largest shift.

    Returns:
        The batch with `obs` and `next_obs` shifted; all else is left as it is.

    Raises:
        ValueError: If `pixels` is negative or observations are no stacks of frames.
    """
    # The same key and the same shape draw the same shifts.
    return batch._replace(obs=random_shift(key, batch.obs, pixels), next_obs=random_shift(key, batch.next_obs, pixels))
