"""Heads without a dueling structure, and ReLU: the network of Mnih et al. (2015)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.config import Config
from jaxdqn.networks.architectures import make_network, nature_cnn
from jaxdqn.networks.heads import DuelingHeads
from jaxdqn.networks.outputs import Categorical, ImplicitQuantiles, Quantiles, Values
from jaxdqn.observations import ObsSpec

FEATURES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
OUTPUTS = [Values(), Categorical(-2.0, 3.0, 11), Quantiles(7), ImplicitQuantiles(cosines=6)]
ATARI = ObsSpec((84, 84), np.uint8, 4)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_a_single_head_is_a_plain_perceptron():
    heads = DuelingHeads(3, (5, 4), dueling=False, activation="relu", value_bias=1.5)
    params = heads.init(jax.random.key(0), FEATURES)["params"]
    assert set(params) == {"action_first", "action_1", "action_output"}
    x = np.asarray(FEATURES)
    for name in params:
        x = x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])
        x = x if name == "action_output" else np.maximum(x, 0)
    np.testing.assert_allclose(heads.apply({"params": params}, FEATURES).q_values, x, atol=1e-5)
    np.testing.assert_array_equal(params["action_output"]["bias"], [1.5] * 3)


@pytest.mark.parametrize(
    ("output", "noisy_sigma", "hidden"),
    [*((output, 0.5, (5, 4)) for output in OUTPUTS), (OUTPUTS[1], None, (5, 4)), (OUTPUTS[1], 0.5, ())],
)
def test_every_output_and_noise_works_with_a_single_head(output, noisy_sigma, hidden):
    heads = DuelingHeads(3, hidden, output=output, noisy_sigma=noisy_sigma, dueling=False)
    params = heads.init(jax.random.key(0), FEATURES)
    values = heads.apply(params, FEATURES).q_values
    assert values.shape == (4, 3)
    noisy = heads.apply(params, FEATURES, rngs={"noise": jax.random.key(1)}).q_values
    assert np.array_equal(noisy, values) == (noisy_sigma is None)


def test_the_network_of_2015_has_its_number_of_parameters_and_its_numbers():
    network = nature_cnn(6).clone(dueling=False, activation="relu")
    obs = jnp.asarray(np.random.default_rng(0).random((2, 84, 84, 4)), jnp.float32)
    params = network.init(jax.random.key(0), obs)
    assert count(params) == 1_687_206
    x = obs
    for index, (features, size, stride) in enumerate(((32, 8, 4), (64, 4, 2), (64, 3, 1))):
        conv = nn.Conv(features, (size, size), (stride, stride), padding="VALID")
        x = nn.relu(conv.apply({"params": params["params"][f"Conv_{index}"]}, x))
    heads = params["params"]["DuelingHeads_0"]
    x = x.reshape(2, -1)
    x = nn.relu(x @ heads["action_first"]["kernel"] + heads["action_first"]["bias"])
    x = x @ heads["action_output"]["kernel"] + heads["action_output"]["bias"]
    np.testing.assert_allclose(network.apply(params, obs).q_values, x, atol=1e-4)


def test_a_config_names_both():
    config = Config(env="ALE/Pong-v5", network="nature", dueling=False, activation="relu")
    network = make_network(config, 6, ATARI)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 84, 84, 4)))
    assert count(shapes) == 1_687_206
    for change in ({"dueling": True}, {"activation": "elu"}):
        other = make_network(dataclasses.replace(config, **change), 6, ATARI)
        assert other != network
    with pytest.raises(ValueError, match="activation 'gelu' must be one of elu, relu"):
        Config(activation="gelu")
