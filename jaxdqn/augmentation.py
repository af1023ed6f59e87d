"""Augmentation of sampled transitions: random shifts and mirror images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, Shaped

from jaxdqn.observations import ObsSpec
from jaxdqn.types import Batch

# Unsigned integers as wide as a stack of this many bytes.
_WORD_DTYPES = {2: jnp.uint16, 4: jnp.uint32}


def augment_batch(
    key: Key[Array, ""], batch: Batch, *, random_shift: int = 0, mirror: bool = False, num_actions: int
) -> Batch:
    """Apply `shift_batch` and then `mirror_batch`, in one pass over the pixels.

    `random_shift` and `mirror` are the fields of `Config` with these names.

    Args:
        key: Random key; consumed.
        batch: Transitions.
        random_shift: Largest shift in pixels; 0: no shift.
        mirror: Whether to mirror each transition with probability 1/2.
        num_actions: Number of discrete actions.

    Raises:
        ValueError: If `random_shift` is negative, or observations to be changed are not stacks of frames.
    """
    if not random_shift and not mirror:
        return batch
    shift_key, mirror_key = jax.random.split(key)
    columns = _batch_columns(batch)
    if random_shift:
        columns = _shift_columns(shift_key, columns, random_shift)
    if mirror:
        mirrored = _draw_mirrored(mirror_key, batch)
        columns, batch = _mirror_columns(columns, mirrored), _mirror_actions(batch, mirrored, num_actions)
    return _with_columns(batch, columns)


def check_augmentation(obs: ObsSpec, *, random_shift: int, mirror: bool) -> None:
    """Raise `ValueError` if observations should be shifted or mirrored but are not images, or are too narrow."""
    for name, value, off in (("random_shift", random_shift, 0), ("mirror", mirror, False)):
        if value and not obs.is_image:
            raise ValueError(f"{name} {value} needs images, not vectors of shape {obs.shape}: set it to {off}")
    if random_shift and random_shift >= obs.shape[1]:
        raise ValueError(f"random_shift {random_shift} must be below the image width of {obs.shape[1]}")


def random_shift(key: Key[Array, ""], stacks: Shaped[Array, "*B H W K"], pixels: int) -> Shaped[Array, "*B H W K"]:
    """Shift each stack of frames sideways, by a whole number of pixels drawn uniformly from -pixels to pixels.

    Columns that would come from outside the frame repeat the column at the edge.

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
    if stacks.ndim < 3:
        raise ValueError(f"random_shift takes stacks of frames [..., H, W, K], got shape {stacks.shape}")
    return _take_columns(stacks, _shift_columns(key, _columns(stacks), pixels))


def shift_batch(key: Key[Array, ""], batch: Batch, pixels: int) -> Batch:
    """Shift transitions sideways; both observations of a transition move by the same number of pixels.

    A transition that is shifted as a whole could have happened a few pixels to the side, if the environment is the same
    there. With a separate shift for each observation, as in Kostrikov et al., the value of one position is learned from
    the value of another. Near a border that ends episodes neither is right: the last `pixels` before it are blurred.

    Args:
        key: Random key; consumed.
        batch: Transitions whose observations are stacks of frames `[..., H, W, K]`, of any dtype.
        pixels: Largest shift.

    Returns:
        The batch with `obs` and `next_obs` shifted; the other fields are unchanged.

    Raises:
        ValueError: If `pixels` is negative or observations are not stacks of frames.
    """
    return _with_columns(batch, _shift_columns(key, _batch_columns(batch), pixels))


def mirror_batch(key: Key[Array, ""], batch: Batch, num_actions: int) -> Batch:
    """Replace each transition by its mirror image, with probability 1/2.

    Frames are flipped left to right and action `a` becomes `num_actions - 1 - a`. If left and right are alike and
    actions are ordered from one side to the other, as in CartPole, the image is a transition of the same environment:
    it doubles the data about every fall, and neither side is seen less often than the other.

    Args:
        key: Random key; consumed.
        batch: Transitions whose observations are stacks of frames `[..., H, W, K]`, of any dtype.
        num_actions: Number of discrete actions.

    Returns:
        The batch with `obs`, `action`, `next_obs` and masks of about half of the transitions mirrored.

    Raises:
        ValueError: If observations are not stacks of frames.

    References:
        van der Pol et al., MDP Homomorphic Networks: Group Symmetries in Reinforcement Learning (2020), who
        build this symmetry of CartPole into the network; Lin et al., Invariant Transform Experience Replay (2020).
    """
    mirrored = _draw_mirrored(key, batch)
    columns = _mirror_columns(_batch_columns(batch), mirrored)
    return _with_columns(_mirror_actions(batch, mirrored, num_actions), columns)


def _columns(stacks: Shaped[Array, "*B H W K"]) -> Int[Array, "*B W"]:
    """Return the column indices of each stack's frames."""
    *batch, _, width, _ = stacks.shape
    return jnp.broadcast_to(jnp.arange(width), (*batch, width))


def _batch_columns(batch: Batch) -> Int[Array, "*B W"]:
    """Return `_columns` of a batch; raise `ValueError` if its observations are not stacks of frames."""
    if batch.obs.ndim != batch.action.ndim + 3:
        raise ValueError(
            f"observations to be shifted or mirrored must be stacks of frames [..., H, W, K], not {batch.obs.shape}"
        )
    return _columns(batch.obs)


def _shift_columns(key: Key[Array, ""], columns: Int[Array, "*B W"], pixels: int) -> Int[Array, "*B W"]:
    """Shift column indices at random; raise `ValueError` if `pixels` is negative."""
    if pixels < 0:
        raise ValueError(f"random_shift {pixels} must be 0 or above")
    shift = jax.random.randint(key, columns.shape[:-1], -pixels, pixels + 1)
    return jnp.clip(columns + shift[..., None], 0, columns.shape[-1] - 1)


def _draw_mirrored(key: Key[Array, ""], batch: Batch) -> Bool[Array, "*B"]:
    """Draw which transitions to mirror."""
    return jax.random.bernoulli(key, 0.5, batch.action.shape)


def _mirror_columns(columns: Int[Array, "*B W"], mirrored: Bool[Array, "*B"]) -> Int[Array, "*B W"]:
    """Reverse the column indices of mirrored transitions."""
    return jnp.where(mirrored[..., None], columns[..., ::-1], columns)


def _mirror_actions(batch: Batch, mirrored: Bool[Array, "*B"], num_actions: int) -> Batch:
    """Replace action `a` of mirrored transitions by `num_actions - 1 - a`, also in masks."""

    def mirror(mask: Bool[Array, "*B A"] | None) -> Bool[Array, "*B A"] | None:
        return None if mask is None else jnp.where(mirrored[..., None], mask[..., ::-1], mask)

    action = jnp.where(mirrored, num_actions - 1 - batch.action, batch.action)
    return batch._replace(action=action, mask=mirror(batch.mask), next_mask=mirror(batch.next_mask))


def _with_columns(batch: Batch, columns: Int[Array, "*B W"]) -> Batch:
    """Rearrange the columns of both observations of each transition."""
    return batch._replace(obs=_take_columns(batch.obs, columns), next_obs=_take_columns(batch.next_obs, columns))


def _take_columns(stacks: Shaped[Array, "*B H W K"], columns: Int[Array, "*B W"]) -> Shaped[Array, "*B H W K"]:
    """Return `stacks[..., columns, :]`, with separate columns for each stack."""
    shape, dtype = stacks.shape, stacks.dtype
    word_dtype = _WORD_DTYPES.get(shape[-1]) if dtype == jnp.uint8 else None
    if word_dtype is not None:  # gathering the bytes of a stack as one word takes 0.6 of the time
        stacks = jax.lax.bitcast_convert_type(stacks, word_dtype)[..., None]
    flat = stacks.reshape(-1, *stacks.shape[-3:])
    taken = jax.vmap(lambda stack, index: stack.at[:, index].get(mode="promise_in_bounds"))(
        flat, columns.reshape(-1, shape[-2])
    )
    if word_dtype is not None:
        taken = jax.lax.bitcast_convert_type(taken, dtype)
    return taken.reshape(shape)
