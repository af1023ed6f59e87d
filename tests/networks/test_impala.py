"""The network of IMPALA against Flax's layers, its pooling against Flax's, and its number of parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.config import Config
from jaxdqn.networks.architectures import make_network
from jaxdqn.networks.convolution import same_padding
from jaxdqn.networks.impala import ImpalaCNN, max_pool
from jaxdqn.observations import ObsSpec

pytestmark = pytest.mark.usefixtures("strict_promotion")


def random(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("shape", [(12, 11), (2, 3), (1, 1)])
def test_the_pooling_and_its_gradient_are_those_of_flax(shape):
    x = random((2, *shape, 3))

    def value_and_gradient(pool):
        gradient = jax.grad(lambda x: (pool(x) * jnp.cos(pool(x))).sum())(x)
        return pool(x), gradient

    ours = value_and_gradient(max_pool)
    theirs = value_and_gradient(lambda x: nn.max_pool(x, (3, 3), (2, 2), "SAME"))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-6)


def test_the_padding_is_that_of_jax():
    for side in range(1, 12):
        for size in range(1, 6):
            for stride in range(1, 5):
                wanted = jax.lax.padtype_to_pads((side,), (size,), (stride,), "SAME")
                assert [same_padding(side, size, stride)] == wanted


def test_the_network_is_that_of_the_paper():
    network = ImpalaCNN(3, features=(4, 6), hidden=(8,), dueling=False)
    obs = random((2, 13, 12, 2))
    params = network.init(jax.random.key(0), obs)["params"]
    convolutions = iter([params[f"Conv_{index}"] for index in range(10)])

    def convolve(x):
        layer = next(convolutions)
        conv = nn.Conv(layer["kernel"].shape[-1], (3, 3), padding="SAME")
        return conv.apply({"params": layer}, x)

    x = obs
    for _ in range(2):
        x = nn.max_pool(convolve(x), (3, 3), (2, 2), "SAME")
        for _ in range(2):
            x = x + convolve(nn.relu(convolve(nn.relu(x))))
    heads = params["DuelingHeads_0"]
    x = nn.relu(x).reshape(2, -1)
    x = nn.relu(x @ heads["action_first"]["kernel"] + heads["action_first"]["bias"][None])
    x = x @ heads["action_output"]["kernel"] + heads["action_output"]["bias"][None]
    np.testing.assert_allclose(network.apply({"params": params}, obs).q_values, x, atol=1e-4)


def test_a_config_names_it_with_its_number_of_parameters():
    config = Config(env="ALE/Pong-v5", network="impala", dueling=False, activation="relu")
    network = make_network(config, 6, ObsSpec((84, 84), np.uint8, 4))
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 84, 84, 4)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 1_090_774
    for fields in ({"layer_norm": True}, {"noisy": True}, {"distribution": "c51"}, {"distribution": "iqn"}):
        small = make_network(Config(network="impala", **fields), 3, ObsSpec((10, 10, 4), np.uint8, 1))
        shapes, _ = jax.eval_shape(small.init_with_output, jax.random.key(0), jnp.zeros((2, 10, 10, 4)))
        assert shapes.q_values.shape == (2, 3)
