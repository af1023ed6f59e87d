"""What a head estimates for each action: a value, a categorical distribution, or quantiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdqn.types import QOutputs


class Output(Protocol):
    """How the numbers that a head gives for each action are read."""

    @property
    def width(self) -> int:
        """Numbers for each action."""

    @property
    def starts_at_value(self) -> bool:
        """Whether the numbers are returns, so that a bias of the head is the value that it predicts initially."""

    def read(self, numbers: Float[Array, "B A M"]) -> QOutputs:
        """Return action values and distributions."""


@dataclass(frozen=True)
class Values:
    """One number for each action: its value."""

    width: int = 1
    starts_at_value: bool = True

    def read(self, numbers: Float[Array, "B A 1"]) -> QOutputs:
        """Return the numbers as action values."""
        return QOutputs(numbers[..., 0])


@dataclass(frozen=True)
class Categorical:
    """Logits of a distribution over evenly spaced returns, as in C51.

    Attributes:
        v_min: Lowest return, in units of scaled rewards.
        v_max: Highest return.
        width: Number of returns.

    References:
        Bellemare et al., A Distributional Perspective on Reinforcement Learning (2017), section 4.
    """

    v_min: float
    v_max: float
    width: int = 51
    starts_at_value: bool = False

    @property
    def support(self) -> Float[Array, " M"]:
        """The returns."""
        return jnp.linspace(self.v_min, self.v_max, self.width, dtype=jnp.float32)

    def read(self, numbers: Float[Array, "B A M"]) -> QOutputs:
        """Return the means of the distributions, and the logits."""
        return QOutputs(jax.nn.softmax(numbers) @ self.support, numbers)


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of the return at fixed fractions `(i + 1/2) / width`, as in QR-DQN.

    Attributes:
        width: Number of quantiles.

    References:
        Dabney et al., Distributional Reinforcement Learning with Quantile Regression (2018), lemma 2.
    """

    width: int = 200
    starts_at_value: bool = True

    def read(self, numbers: Float[Array, "B A M"]) -> QOutputs:
        """Return the means of the quantiles, the quantiles, and their fractions."""
        taus = jnp.broadcast_to(midpoints(self.width)[None], (numbers.shape[0], self.width))
        return QOutputs(numbers.mean(axis=-1), numbers, taus)


@dataclass(frozen=True)
class ImplicitQuantiles:
    """Quantiles of the return at fractions that are an input of the network, as in IQN.

    Attributes:
        cosines: Number of cosines of which the features of a fraction are made.

    References:
        Dabney et al., Implicit Quantile Networks for Distributional Reinforcement Learning (2018), eq. 4.
    """

    cosines: int = 64
    width: int = 1
    starts_at_value: bool = True

    def read(self, numbers: Float[Array, "B A M"]) -> QOutputs:
        """Return the means of the quantiles, and the quantiles; their fractions are not known here."""
        return QOutputs(numbers.mean(axis=-1), numbers)


def midpoints(count: int) -> Float[Array, " count"]:
    """Return the middles of `count` equal parts of [0, 1]."""
    return (jnp.arange(count, dtype=jnp.float32) + 0.5) / count


class TauFeatures(nn.Module):
    """Features of fractions: `relu(Dense(cos(pi i tau)))` for `i = 1..cosines`, as wide as the observation's features.

    Attributes:
        features: Their number.
        cosines: Number of cosines.
    """

    features: int
    cosines: int = 64

    @nn.compact
    def __call__(self, taus: Float[Array, "B N"]) -> Float[Array, "B N D"]:
        """Return the features of a batch of fractions."""
        multiples = jnp.arange(1, self.cosines + 1, dtype=jnp.float32)  # from 1: at 0 the cosine says nothing
        angles = jnp.pi * multiples[None, None] * taus[..., None]
        return nn.relu(nn.Dense(self.features)(jnp.cos(angles)))


def as_q_outputs(outputs: Any) -> QOutputs:
    """Return a network's outputs; an array `[B, A]` are action values without a distribution."""
    return outputs if isinstance(outputs, QOutputs) else QOutputs(outputs)
