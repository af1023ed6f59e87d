"""Estimates of one sample, chosen or random, and a transition."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from jaxdqn.objectives.objective import Estimates
from jaxdqn.types import Batch, QOutputs

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # imports read names that JAX has deprecated
    import rlax  # noqa: F401  # tests import it from here


SUPPORT = np.linspace(-2.0, 3.0, 11).astype(np.float32)


def transition(action=1, reward=0.5, discount=0.9, **masks):
    masks = {name: jnp.asarray(mask) for name, mask in masks.items()}
    return Batch(jnp.zeros(1), jnp.int32(action), jnp.float32(reward), jnp.float32(discount), jnp.zeros(1), **masks)


def estimates_of(*q_values):
    """Return estimates without distributions: online, target, next online, next target."""
    return Estimates(*(QOutputs(jnp.asarray(values, jnp.float32)) for values in q_values))


def random_estimates(seed, num_actions, width, read):
    rng = np.random.default_rng(seed)
    return Estimates(*(read(jnp.asarray(rng.normal(size=(num_actions, width)), jnp.float32)) for _ in range(4)))


def categorical(logits):
    return QOutputs(jax.nn.softmax(logits) @ jnp.asarray(SUPPORT), logits)


def quantiles(values):
    count = values.shape[-1]
    taus = (jnp.arange(count, dtype=jnp.float32) + 0.5) / count
    return QOutputs(values.mean(axis=-1), values, taus)
