"""Networks by name: what a config's `network` is, and which one suits what is observed."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from jaxdqn.config import Config
from jaxdqn.networks.dueling import DuelingCNN, DuelingMLP
from jaxdqn.observations import ObsSpec

SMALLEST_CNN = 36
"""Side of an image from which on `auto` takes strides: of smaller ones too few maps would be left."""


def small_cnn(num_actions: int, *, value_bias: float = 0.0, dtype: DTypeLike | None = None) -> DuelingCNN:
    """Feature maps and dueling heads, for images from 36 pixels on: nothing is assumed of what they show.

    Of 64x64 pixels its last maps are 7x7, as are those of Mnih et al. (2015) of 84x84: on jaxdqn/Ball-v0 it matters how
    fine they are. A third of that network's channels, as the CPU is to train it as well.
    """
    return DuelingCNN(
        num_actions,
        features=(16, 32, 32),
        kernel_sizes=(6, 4, 3),
        strides=(3, 2, 1),
        hidden=(256,),
        value_bias=value_bias,
        variance=1.0,
        dtype=dtype,
    )


def nature_cnn(num_actions: int, *, value_bias: float = 0.0, dtype: DTypeLike | None = None) -> DuelingCNN:
    """The usual network of Atari, for images from 36 pixels on; made for 84x84, and for accelerators.

    Channels, kernels and strides of Mnih et al. (2015), heads of Wang et al. (2016), LeCun's initialisation.
    """
    return DuelingCNN(
        num_actions,
        kernel_sizes=(8, 4, 3),
        strides=(4, 2, 1),
        hidden=(512,),
        value_bias=value_bias,
        variance=1.0,
        dtype=dtype,
    )


def grid_cnn(num_actions: int, *, value_bias: float = 0.0, dtype: DTypeLike | None = None) -> DuelingCNN:
    """For grids, whose every pixel is a thing of its own: 16 kernels of 3x3, then dueling heads of 128 units.

    References:
        Young and Tian, MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning
        Experiments (2019), section 3, whose convolution and width these are.
    """
    return DuelingCNN(
        num_actions,
        features=(16,),
        kernel_sizes=(3,),
        strides=(1,),
        hidden=(128,),
        value_bias=value_bias,
        variance=1.0,
        dtype=dtype,
    )


def motion_cnn(
    num_actions: int, *, value_bias: float = 2.0, channels: int = 1, dtype: DTypeLike | None = None
) -> DuelingCNN:
    """The network of the preset `cartpole`: fewer multiply-adds, and motion made easy to see.

    Kernels and strides of Mnih et al. (2015), which take less than a quarter of the multiply-adds of TorchRL's network;
    LeCun's initialisation; frames given as differences, four times as large (on pixel CartPole a gain of 10 learned
    more slowly); of the last feature maps the moments of rows, which suit CartPole and say little of where a thing is
    elsewhere. 152,163 parameters for 64x64x4 and two actions.
    """
    return DuelingCNN(
        num_actions,
        kernel_sizes=(8, 4, 3),
        strides=(4, 2, 1),
        value_bias=value_bias,
        variance=1.0,
        motion_gain=4.0,
        channels=channels,
        moments=True,
        dtype=dtype,
    )


def make_network(config: Config, num_actions: int, obs: ObsSpec | None = None) -> nn.Module:
    """The config's own network: a dueling CNN for images, the dueling MLP for vectors.

    Args:
        config: The run.
        num_actions: Number of discrete actions.
        obs: What is observed; None: vectors if `pixels` is False, else grey frames of `frame_size`.

    Raises:
        ValueError: If images are too small for the network that is named.
    """
    if obs is None:
        frames = ObsSpec((config.frame_size,) * 2, np.uint8, config.frame_stack or 4)
        obs = ObsSpec((1,), np.float32) if config.pixels is False else frames
    side, bias = min(obs.shape[:2], default=0), config.value_bias
    name = config.network
    if name == "auto":  # one cell has no neighbours to be convolved with
        name = "cnn" if side >= SMALLEST_CNN else "grid"
    if not obs.is_image or (config.network == "auto" and side < grid_cnn(1).smallest_frame):
        if config.compute_dtype != "float32":
            raise ValueError(
                f"compute_dtype {config.compute_dtype} is for convolutions, and there are none: set it to float32"
            )
        return DuelingMLP(num_actions, value_bias=bias)
    dtype = jnp.dtype(config.compute_dtype)
    network = {
        "cnn": partial(small_cnn, num_actions),
        "nature": partial(nature_cnn, num_actions),
        "grid": partial(grid_cnn, num_actions),
        "motion": partial(motion_cnn, num_actions, channels=obs.channels),
        "torchrl": partial(DuelingCNN, num_actions),
    }[name](value_bias=bias, dtype=dtype)
    if side < network.smallest_frame:
        size = f"frame_size {side}" if obs.shape == (config.frame_size,) * 2 else f"an image of {obs.shape}"
        raise ValueError(
            f"{size} is too small for network {name!r}: use at least {network.smallest_frame}, or network auto"
        )
    return network
