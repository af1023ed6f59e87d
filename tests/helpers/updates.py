"""Small problems for one update: a linear one worked out by hand, and a random one of two layers."""

import jax.numpy as jnp
import numpy as np

from jaxdqn.learner import init_learner
from jaxdqn.networks.apply import apply_from
from jaxdqn.types import Batch

ONLINE = np.array([[1.0, 0.0], [2.0, 1.0]], np.float32)
TARGET = np.array([[0.0, 4.0], [2.0, 0.0]], np.float32)


@apply_from
def linear(params, obs):
    return obs @ params["w"]


@apply_from
def two_layers(params, obs):
    return jnp.tanh(obs @ params["hidden"]) @ params["output"]


def hand_batch():
    return Batch(
        obs=jnp.array([[1.0, 0.0], [0.0, 1.0]]),  # online values [1, 0] and [2, 1]: taken 1 and 1
        action=jnp.array([0, 1]),
        reward=jnp.array([1.0, 0.5]),
        discount=jnp.array([0.5, 0.0]),  # the second is terminal
        next_obs=jnp.array([[1.0, 1.0], [2.0, 0.0]]),  # of the first: target [2, 4], online [3, 1]
    )


def hand_learner(optimizer):
    # New arrays, because an update donates them.
    learner = init_learner({"w": jnp.array(ONLINE)}, optimizer)
    return learner._replace(target_params={"w": jnp.array(TARGET)})


def random_problem(batch_size=8):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = {"hidden": draw(3, 5), "output": draw(5, 2)}
    action = jnp.asarray(rng.integers(0, 2, batch_size), jnp.int32)
    discount = jnp.full(batch_size, 0.9)
    return params, Batch(draw(batch_size, 3), action, draw(batch_size), discount, draw(batch_size, 3))
