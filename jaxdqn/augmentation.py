"""Augmentation of sampled frames: what replay does not hold, but could have."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, Shaped

from jaxdqn.observations import ObsSpec
from jaxdqn.types import Batch

# Words as wide as a stack of so many bytes.
_WORDS = {2: jnp.uint16, 4: jnp.uint32}


def augment_batch(
    key: Key[Array, ""], batch: Batch, *, random_shift: int = 0, mirror: bool = False, num_actions: int
) -> Batch:
    """`shift_batch` and then `mirror_batch`, as the fields of `Config` of these names say, in one pass over the pixels.

    Args:
        key: Random key; consumed.
        batch: Transitions.
        random_shift: Largest shift in pixels; 0 leaves frames where they are.
        mirror: Whether half of the transitions are mirrored.
        num_actions: Number of discrete actions.

    Raises:
        ValueError: If `random_shift` is negative, or observations that are to be changed are no stacks of frames.
    """
    if not random_shift and not mirror:
        return batch
    shift_key, mirror_key = jax.random.split(key)
    columns = _columns_of(batch)
    if random_shift:
        columns = _shifted(shift_key, columns, random_shift)
    if mirror:
        mirrored = _coins(mirror_key, batch)
        columns, batch = _turned(columns, mirrored), _reversed_actions(batch, mirrored, num_actions)
    return _move(batch, columns)


def check_augmentation(obs: ObsSpec, *, random_shift: int, mirror: bool) -> None:
    """Raise `ValueError` if observations are to be shifted or mirrored, and cannot be."""
    for name, given, none in (("random_shift", random_shift, 0), ("mirror", mirror, False)):
        if given and not obs.is_image:
            raise ValueError(f"{name} {given} needs images, not {obs.shape}: set it to {none}")
    if random_shift and random_shift >= obs.shape[1]:
        raise ValueError(f"random_shift {random_shift} must be below the images' width of {obs.shape[1]}")


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
    if stacks.ndim < 3:
        raise ValueError(f"random_shift takes stacks of frames [..., H, W, K], got shape {stacks.shape}")
    return _take_columns(stacks, _shifted(key, _columns(stacks), pixels))


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
    return _move(batch, _shifted(key, _columns_of(batch), pixels))


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
    mirrored = _coins(key, batch)
    return _move(_reversed_actions(batch, mirrored, num_actions), _turned(_columns_of(batch), mirrored))


def _columns(stacks: Shaped[Array, "*B H W K"]) -> Int[Array, "*B W"]:
    """The columns of each stack's frames, where they are."""
    *batch, _, width, _ = stacks.shape
    return jnp.broadcast_to(jnp.arange(width), (*batch, width))


def _columns_of(batch: Batch) -> Int[Array, "*B W"]:
    """`_columns` of both ends of transitions; raises `ValueError` if their observations are no stacks of frames."""
    if batch.obs.ndim != batch.action.ndim + 3:
        raise ValueError(f"what is shifted or mirrored must be stacks of frames [..., H, W, K], not {batch.obs.shape}")
    return _columns(batch.obs)


def _shifted(key: Key[Array, ""], columns: Int[Array, "*B W"], pixels: int) -> Int[Array, "*B W"]:
    """Columns as they are after a random shift; raises `ValueError` if `pixels` is negative."""
    if pixels < 0:
        raise ValueError(f"random_shift {pixels} must be 0 or above")
    shift = jax.random.randint(key, columns.shape[:-1], -pixels, pixels + 1)
    return jnp.clip(columns + shift[..., None], 0, columns.shape[-1] - 1)


def _coins(key: Key[Array, ""], batch: Batch) -> Bool[Array, "*B"]:
    """Which transitions are mirrored."""
    return jax.random.bernoulli(key, 0.5, batch.action.shape)


def _turned(columns: Int[Array, "*B W"], mirrored: Bool[Array, "*B"]) -> Int[Array, "*B W"]:
    """Columns from the other side, where a transition is mirrored."""
    return jnp.where(mirrored[..., None], columns[..., ::-1], columns)


def _reversed_actions(batch: Batch, mirrored: Bool[Array, "*B"], num_actions: int) -> Batch:
    """Action `a` as `num_actions - 1 - a`, where a transition is mirrored."""
    return batch._replace(action=jnp.where(mirrored, num_actions - 1 - batch.action, batch.action))


def _move(batch: Batch, columns: Int[Array, "*B W"]) -> Batch:
    """Both ends of each transition, with its frames' columns taken from elsewhere."""
    return batch._replace(obs=_take_columns(batch.obs, columns), next_obs=_take_columns(batch.next_obs, columns))


def _take_columns(stacks: Shaped[Array, "*B H W K"], columns: Int[Array, "*B W"]) -> Shaped[Array, "*B H W K"]:
    """`stacks[..., columns, :]`, each stack with columns of its own."""
    shape, dtype = stacks.shape, stacks.dtype
    word = _WORDS.get(shape[-1]) if dtype == jnp.uint8 else None
    if word is not None:  # the bytes of a stack move together: a gather of words takes 0.6 of the time
        stacks = jax.lax.bitcast_convert_type(stacks, word)[..., None]
    flat = stacks.reshape(-1, *stacks.shape[-3:])
    taken = jax.vmap(lambda stack, where: stack.at[:, where].get(mode="promise_in_bounds"))(
        flat, columns.reshape(-1, shape[-2])
    )
    if word is not None:
        taken = jax.lax.bitcast_convert_type(taken, dtype)
    return taken.reshape(shape)
