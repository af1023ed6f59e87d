"""The networks: their sizes, their initialisation, and their formulas against NumPy."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.agent.making import make_agent
from jaxdqn.config import Config
from jaxdqn.networks.architectures import make_network, motion_cnn, padded_motion_cnn
from jaxdqn.networks.dueling import (
    DuelingCNN,
    DuelingHeads,
    DuelingMLP,
    frame_differences,
    row_moments,
)
from jaxdqn.networks.heads import elu

pytestmark = pytest.mark.usefixtures("strict_promotion")

# Fan-in of each layer for 64x64x4: kernel area times channels in, or features in (12 * 12 * 64 = 9216).
FAN_IN = {
    "Conv_0": 6 * 6 * 4,
    "Conv_1": 4 * 4 * 32,
    "Conv_2": 3 * 3 * 64,
    "first": 9216,
    "advantage_1": 64,
    "advantage_output": 64,
    "value_1": 64,
    "value_output": 64,
}
WITH_RANDOM_BIAS = ("Conv_0", "first")


@pytest.fixture(scope="module")
def params():
    """Initial parameters of TorchRL's network. XLA compiles draws of its own generator three times faster."""
    key = jax.random.key(0, impl="rbg")
    return jax.jit(DuelingCNN(2).init)(key, jnp.zeros((1, 64, 64, 4)))


@pytest.fixture(scope="module")
def layers(params):
    """The same parameters by layer: convolutions and heads in one dict."""
    flat = dict(params["params"])
    return jax.tree.map(np.asarray, flat | flat.pop("DuelingHeads_0"))


def numpy_head(layers, name, features):
    half = slice(None, 64) if name == "advantage" else slice(64, None)  # of the first layer, which both share
    x = features
    for layer, columns in (("first", half), (f"{name}_1", slice(None))):
        x = x @ np.asarray(layers[layer]["kernel"])[:, columns] + np.asarray(layers[layer]["bias"])[columns]
        x = np.where(x > 0, x, np.expm1(x))
    return x @ np.asarray(layers[f"{name}_output"]["kernel"]) + np.asarray(layers[f"{name}_output"]["bias"])


def values_of(network):
    return jax.jit(lambda params, obs: network.apply(params, obs).q_values)


def random_params(network, inputs):
    """Draw every parameter at random, also biases: biases of 0 would hide errors."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), inputs)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32), shapes)


def random_heads():
    """Return dueling heads of three actions, their parameters, and the features of four states."""
    heads = DuelingHeads(3)
    features = jnp.asarray(np.random.default_rng(1).normal(size=(4, 10)), jnp.float32)
    return values_of(heads), random_params(heads, features), features


def test_the_torchrl_network_has_1_262_691_parameters(layers):
    assert sum(x.size for x in jax.tree.leaves(layers)) == 1_262_691
    assert set(layers) == set(FAN_IN)


@pytest.mark.parametrize("name", FAN_IN)
def test_weights_are_uniform_within_one_over_the_root_of_fan_in(layers, name):
    kernel, bound = layers[name]["kernel"], 1 / math.sqrt(FAN_IN[name])
    assert math.prod(kernel.shape[:-1]) == FAN_IN[name]
    assert np.abs(kernel).max() <= bound * (1 + 1e-6)  # float32 rounding of the bound
    # They fill the interval. The smallest layer has 64 weights: it misses the top tenth with probability 0.9^64, 0.1 %.
    assert np.abs(kernel).max() > 0.9 * bound
    if kernel.size > 1000:  # a uniform draw has deviation bound / sqrt(3); its error is below 5 % at this size
        assert kernel.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("name", WITH_RANDOM_BIAS)
def test_first_layers_have_a_uniform_bias(layers, name):
    bias, bound = layers[name]["bias"], 1 / math.sqrt(FAN_IN[name])
    assert np.abs(bias).max() <= bound * (1 + 1e-6)
    assert bias.max() > 0.7 * bound  # 32 draws miss the top 15 % with probability 0.85^32, half a percent
    assert bias.min() < -0.7 * bound
    assert (bias != 0).all()


@pytest.mark.parametrize("name", sorted(set(FAN_IN) - set(WITH_RANDOM_BIAS)))
def test_other_biases_are_0_and_the_value_starts_at_2(layers, name):
    assert (layers[name]["bias"] == (2.0 if name == "value_output" else 0.0)).all()


@pytest.mark.implicit_promotion
def test_q_is_the_value_plus_the_centred_advantage():
    q_function, params, features = random_heads()
    value = numpy_head(params["params"], "value", features)
    advantage = numpy_head(params["params"], "advantage", features)
    assert np.std(value) > 0.1  # the four states differ in value
    q_values = q_function(params, features)
    expected = value + advantage - advantage.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(q_values, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(q_values).mean(axis=1), value[:, 0], rtol=0, atol=1e-5)


def test_a_constant_added_to_every_advantage_changes_nothing():
    q_function, params, features = random_heads()
    moved = jax.tree.map(jnp.copy, params)
    moved["params"]["advantage_output"]["bias"] += 3.7
    np.testing.assert_allclose(q_function(moved, features), q_function(params, features), rtol=0, atol=1e-5)
    moved["params"]["value_output"]["bias"] += 3.7
    np.testing.assert_allclose(q_function(moved, features), q_function(params, features) + 3.7, rtol=0, atol=1e-5)


def test_elu_and_its_gradient_equal_those_of_jax():
    small = np.array([0.0, -0.0, 1e-9, -1e-9, 1e-4, -1e-4, 1e4, -1e4])  # at 1e4 a naive exp overflows to a NaN gradient
    x = jnp.asarray(np.concatenate([small, np.linspace(-20, 20, 4001)]), jnp.float32)
    np.testing.assert_allclose(jax.jit(elu)(x), jax.nn.elu(x), rtol=0, atol=1e-6)
    gradient, expected = (jax.jit(jax.vmap(jax.grad(f)))(x) for f in (elu, jax.nn.elu))
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6)
    assert gradient[0] == 1.0  # of elu at 0


@pytest.mark.parametrize(("shape", "num_actions"), [((1,), 2), ((4,), 3), ((2, 3), 2)], ids=str)
def test_the_mlp_takes_any_vector(shape, num_actions):
    network = DuelingMLP(num_actions)
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(6, *shape)), jnp.float32)
    params, apply = random_params(network, obs), values_of(network)
    q_values = apply(params, obs)
    assert q_values.shape == (6, num_actions)
    assert np.std(q_values, axis=0).min() > 1e-3  # every action's value depends on the observation
    np.testing.assert_array_equal(apply(params, obs.reshape(6, -1)), q_values)


@pytest.mark.parametrize("seed", [0, 1])
def test_channels_last_and_xla_agree_on_the_whole_network(params, seed):
    obs = jnp.asarray(np.random.default_rng(seed).normal(size=(2, 64, 64, 4)), jnp.float32)
    whole_network = [values_of(DuelingCNN(2, implementation=name)) for name in ("channels_last", "xla")]
    ours, xla = (q_values(params, obs) for q_values in whole_network)
    assert ours.shape == (2, 2)
    assert np.ptp(ours) > 1e-2  # the values differ, so that agreement is meaningful
    np.testing.assert_allclose(ours, xla, rtol=0, atol=1e-4)


def test_frame_differences_equal_those_computed_by_hand_and_can_be_inverted():
    stack = jnp.array([[1.0, 3.0, 2.0, 2.5]])
    differences = frame_differences(stack, 4.0)
    assert differences.tolist() == [[8.0, -4.0, 2.0, 2.5]]
    back = [float(differences[0, 3])]
    for index in (2, 1, 0):
        back.insert(0, back[0] - float(differences[0, index]) / 4)
    assert back == stack[0].tolist()


def test_row_moments_equal_those_computed_by_hand():
    maps = np.zeros((1, 2, 3, 2), np.float32)
    maps[0, 0, :, 0] = [5, 7, 2]  # columns are at -1, 0 and 1
    maps[0, 1, :, 0] = [0, 0, 4]
    maps[0, 0, :, 1] = [-6, 1, 0]
    assert row_moments(jnp.asarray(maps)).tolist() == [[[14.0, -5.0, -3.0, 6.0], [4.0, 0.0, 4.0, 0.0]]]
    even = jnp.array([6.0, 3.0, 0.0, 12.0]).reshape(1, 1, 4, 1)  # columns at -1, -1/3, 1/3 and 1
    np.testing.assert_allclose(row_moments(even), [[[21.0, 5.0]]], rtol=1e-6)
    alone = jnp.array([[[[7.0]]]])  # a single column is in the middle
    assert row_moments(alone).tolist() == [[[7.0, 0.0]]]
    assert row_moments(even.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_the_motion_network_is_small_has_lecuns_initialisation_and_sees_differences():
    network = motion_cnn(2)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 4)))["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == 152_163
    layers = {**params, **params["DuelingHeads_0"]}
    for layer in ("Conv_0", "Conv_1", "Conv_2", "first", "value_1"):
        kernel = np.asarray(layers[layer]["kernel"])
        fan_in = np.prod(kernel.shape[:-1])
        assert np.std(kernel) == pytest.approx(fan_in**-0.5, rel=0.03)
        assert np.abs(kernel).max() <= (3 / fan_in) ** 0.5
    obs = jax.random.normal(jax.random.key(1), (3, 64, 64, 4))
    plain = DuelingCNN(2, kernel_sizes=(8, 4, 3), strides=(4, 2, 1), moments=True)
    seen = plain.apply({"params": params}, frame_differences(obs, 4.0)).q_values
    np.testing.assert_allclose(network.apply({"params": params}, obs).q_values, seen, rtol=1e-5, atol=1e-5)


def test_the_padded_network_sees_images_with_copies_of_their_edge_columns():
    network = padded_motion_cnn(2)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 4)))
    assert sum(x.size for x in jax.tree.leaves(params)) == 62_995
    obs = jax.random.normal(jax.random.key(1), (3, 64, 64, 4))
    wide = jnp.concatenate([obs[:, :, :1].repeat(24, 2), obs, obs[:, :, -1:].repeat(24, 2)], axis=2)
    plain = motion_cnn(2).clone(features=(16, 32, 32))
    seen = plain.apply(params, wide).q_values
    np.testing.assert_allclose(network.apply(params, obs).q_values, seen, rtol=1e-5, atol=1e-5)
    assert np.abs(seen - plain.apply(params, obs).q_values).max() > 1e-3


def test_bfloat16_is_used_up_to_the_first_dense_layer_and_values_are_float32():
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 64, 64, 4)), jnp.float32)
    network = motion_cnn(2, dtype=jnp.bfloat16)
    params = jax.jit(network.init)(jax.random.key(0, impl="rbg"), obs[:1])
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}
    q_values = values_of(network)(params, obs)
    assert q_values.dtype == jnp.float32
    exact = values_of(motion_cnn(2))(params, obs)
    np.testing.assert_allclose(q_values, exact, atol=0.1)
    assert np.abs(q_values - exact).max() > 1e-4
    program = jax.jit(network.apply).lower(params, obs).as_text()
    assert len(re.findall(r"stablehlo.convolution.*bf16", program)) == 3
    assert len(re.findall(r"stablehlo.dot_general.*bf16", program)) == 1
    assert len(re.findall(r"stablehlo.dot_general.*f32>", program)) >= 4


def test_the_networks_dtype_is_the_compute_dtype_of_the_config():
    config = Config(compute_dtype="bfloat16")
    assert make_network(config, 2).dtype == jnp.bfloat16
    assert make_network(Config(), 2).dtype == jnp.float32
    with pytest.raises(ValueError, match="compute_dtype 'bfloat16' needs pixels: set it to float32"):
        Config(compute_dtype="bfloat16", pixels=False)
    with pytest.raises(ValueError, match="compute_dtype bfloat16 has no effect on your network: set it to float32"):
        make_agent(config, num_actions=2, obs_shape=(64, 64), obs_dtype=np.uint8, network=DuelingCNN(2))
