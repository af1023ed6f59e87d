"""Networks by name: the choices of `Config.network`, and the default for an observation."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from jaxdqn.config import Config
from jaxdqn.distributions import make_output
from jaxdqn.networks.dueling import DuelingCNN, DuelingMLP
from jaxdqn.networks.impala import ImpalaCNN
from jaxdqn.observations import ObsSpec

MIN_CNN_SIDE = 36
"""Smallest side of an image for which `auto` uses strides: smaller images would leave too small feature maps."""


def small_cnn(num_actions: int, *, value_bias: float = 0.0, dtype: DTypeLike | None = None) -> DuelingCNN:
    """Return a dueling CNN for images of at least 36x36 pixels, without assumptions about their content.

    For 64x64 pixels its last maps are 7x7, like those of Mnih et al. (2015) for 84x84: on jaxdqn/Ball-v0 their
    resolution matters. It has half of that network's channels, so that a CPU can train it, too.
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
    """Return the usual network for Atari, for images of at least 36x36 pixels; made for 84x84 and for accelerators.

    Channels, kernels and strides of Mnih et al. (2015), LeCun's initialisation. By default it has the heads of Wang et
    al. (2016) and ELU; with `dueling=False, activation="relu"` it is the network of 2015, with 1,687,206 parameters for
    84x84x4 and six actions.
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
    """Return a network for grids, in which each pixel has its own meaning: 16 kernels of 3x3, heads of 128 units.

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
    """Return a small network for pixel CartPole, with frame differences as input.

    Kernels and strides are those of Mnih et al. (2015), which need less than a quarter of the multiply-adds of
    TorchRL's network; the initialisation is LeCun's. Frame differences have a gain of 4 (on pixel CartPole a gain of 10
    learned more slowly). The heads receive the moments of rows of the last feature maps, which suit CartPole but say
    little about positions in other environments. 152,163 parameters for 64x64x4 and two actions.
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


def padded_motion_cnn(
    num_actions: int, *, value_bias: float = 2.0, channels: int = 1, dtype: DTypeLike | None = None
) -> DuelingCNN:
    """Return the network of the preset `cartpole`: `motion_cnn` with half the channels, on images 48 columns wider.

    24 copies of the leftmost column are at the left, and of the rightmost one at the right. Without them, kernels see
    what is near an edge from fewer places than what is in the middle, and less of what they learn there holds near an
    edge. 62,995 parameters for 64x64x4 and two actions.
    """
    network = motion_cnn(num_actions, value_bias=value_bias, channels=channels, dtype=dtype)
    return network.clone(features=(16, 32, 32), edge_columns=24)


def make_network(config: Config, num_actions: int, obs: ObsSpec | None = None) -> nn.Module:
    """Make the network of a config: a dueling CNN for images, the dueling MLP for vectors.

    Args:
        config: Configuration of the run.
        num_actions: Number of discrete actions.
        obs: Spec of the observations; None: vectors if `pixels` is False, otherwise grey frames of `frame_size`.

    Raises:
        ValueError: If images are too small for `config.network`, or `compute_dtype` is not float32 for an MLP.
    """
    if obs is None:
        frames = ObsSpec((config.frame_size,) * 2, np.uint8, config.frame_stack or 4)
        obs = ObsSpec((1,), np.float32) if config.pixels is False else frames
    side, bias = min(obs.shape[:2], default=0), config.value_bias
    heads: dict[str, Any] = {"output": make_output(config), "layer_norm": config.layer_norm}
    heads |= {"dueling": config.dueling, "activation": config.activation}
    heads["noisy_sigma"] = config.noisy_sigma if config.noisy else None
    name = config.network
    if name == "auto":
        name = "cnn" if side >= MIN_CNN_SIDE else "grid"
    # `auto`: an image below 3x3 has no neighbourhood to convolve.
    if not obs.is_image or (config.network == "auto" and side < grid_cnn(1).smallest_frame):
        if config.compute_dtype != "float32":
            raise ValueError(
                f"compute_dtype {config.compute_dtype} needs a network with convolutions: set it to float32"
            )
        return DuelingMLP(num_actions, value_bias=bias, **heads)
    dtype = jnp.dtype(config.compute_dtype)
    networks: dict[str, Any] = {
        "cnn": partial(small_cnn, num_actions),
        "nature": partial(nature_cnn, num_actions),
        "impala": partial(ImpalaCNN, num_actions),
        "grid": partial(grid_cnn, num_actions),
        "motion": partial(motion_cnn, num_actions, channels=obs.channels),
        "padded-motion": partial(padded_motion_cnn, num_actions, channels=obs.channels),
        "torchrl": partial(DuelingCNN, num_actions),
    }
    network = networks[name](value_bias=bias, dtype=dtype).clone(**heads)
    if side < network.smallest_frame:
        size = f"frame_size {side}" if obs.shape == (config.frame_size,) * 2 else f"an image of {obs.shape}"
        raise ValueError(
            f"{size} is too small for network {name!r}: use at least {network.smallest_frame}, or network auto"
        )
    return network
