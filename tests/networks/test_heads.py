"""Heads that estimate distributions, noisy layers, layer norm: formulas against NumPy, and what is random."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.learner import estimate_keys
from jaxdqn.networks.apply import NetworkKeys, apply_from, make_apply
from jaxdqn.networks.heads import DuelingHeads
from jaxdqn.networks.noisy import NoisyDense
from jaxdqn.networks.outputs import Categorical, ImplicitQuantiles, Quantiles, TauFeatures, Values, midpoints
from jaxdqn.types import QOutputs

pytestmark = pytest.mark.usefixtures("strict_promotion")

OUTPUTS = [Values(), Categorical(-2.0, 3.0, 11), Quantiles(7), ImplicitQuantiles(cosines=6)]
FEATURES = jnp.asarray(np.random.default_rng(1).normal(size=(4, 10)), jnp.float32)


def random_params(module, *inputs):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32), shapes)


def dense(x, layer):
    return x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


def numpy_heads(layers, features, num_actions, width):
    """Return the numbers `[B, A, M]` of dueling heads with two hidden layers of 64."""
    hidden = np.split(dense(features, layers["first"]), 2, axis=1)
    found = []
    for x, name in zip(hidden, ("advantage", "value"), strict=True):
        x = np.where(x > 0, x, np.expm1(x))
        x = dense(x, layers[f"{name}_1"])
        found.append(dense(np.where(x > 0, x, np.expm1(x)), layers[f"{name}_output"]))
    advantage, value = found[0].reshape(-1, num_actions, width), found[1][:, None]
    return value + advantage - advantage.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("output", OUTPUTS[:3], ids=lambda output: type(output).__name__)
def test_each_number_of_an_action_is_dueling_and_the_value_is_the_mean(output):
    heads = DuelingHeads(3, output=output)
    params = random_params(heads, FEATURES)
    found = jax.jit(heads.apply)(params, FEATURES)
    numbers = numpy_heads(params["params"], np.asarray(FEATURES), 3, output.width)
    if isinstance(output, Values):
        assert found.dist is None
        np.testing.assert_allclose(found.q_values, numbers[..., 0], atol=1e-4)
        return
    np.testing.assert_allclose(found.dist, numbers, atol=1e-4)
    if isinstance(output, Quantiles):
        np.testing.assert_allclose(found.q_values, numbers.mean(axis=2), atol=1e-4)
        np.testing.assert_allclose(found.taus, np.tile((np.arange(7) + 0.5) / 7, (4, 1)), atol=1e-6)
    else:
        probabilities = np.exp(numbers) / np.exp(numbers).sum(axis=2, keepdims=True)
        np.testing.assert_allclose(found.q_values, probabilities @ np.linspace(-2, 3, 11), atol=1e-4)
        assert found.taus is None


def test_features_of_a_fraction_are_cosines_of_its_multiples_from_one():
    module, taus = TauFeatures(5, cosines=6), jnp.array([[0.0, 0.25, 0.9]])
    params = random_params(module, taus)
    cosines = np.cos(np.pi * np.arange(1, 7) * np.asarray(taus)[..., None])
    expected = np.maximum(dense(cosines, params["params"]["Dense_0"]), 0)
    np.testing.assert_allclose(module.apply(params, taus), expected, atol=1e-5)


def test_implicit_quantiles_are_those_of_the_fractions_given_and_32_midpoints_without():
    heads = DuelingHeads(3, output=ImplicitQuantiles(cosines=6))
    params = random_params(heads, FEATURES)
    taus = jnp.asarray(np.random.default_rng(2).uniform(size=(4, 5)), jnp.float32)
    apply = jax.jit(heads.apply)
    found = apply(params, FEATURES, taus)
    assert found.dist.shape == (4, 3, 5)
    np.testing.assert_array_equal(found.taus, taus)
    swapped = apply(params, FEATURES, taus[:, ::-1])
    np.testing.assert_allclose(swapped.dist, found.dist[..., ::-1], atol=1e-5)
    np.testing.assert_allclose(found.q_values, found.dist.mean(axis=2), atol=1e-5)
    without = apply(params, FEATURES)
    np.testing.assert_allclose(without.taus, np.tile((np.arange(32) + 0.5) / 32, (4, 1)), atol=1e-6)


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: type(output).__name__)
def test_values_start_at_the_value_bias_unless_numbers_are_logits(output):
    heads = DuelingHeads(2, output=output, value_bias=50.0)
    values = heads.apply(heads.init(jax.random.key(0), FEATURES), FEATURES).q_values
    if isinstance(output, Categorical):
        assert np.all((np.asarray(values) > -2) & (np.asarray(values) < 3))
    else:
        np.testing.assert_allclose(values, 50.0, atol=3.0)


def test_layer_norm_makes_hidden_layers_blind_to_the_scale_of_features():
    heads = DuelingHeads(3, layer_norm=True)
    params = heads.init(jax.random.key(0), FEATURES)
    assert sum("LayerNorm" in name for name in params["params"]) == 4  # two hidden layers of two heads
    biasless = jax.tree.map(lambda x: x, params)
    biasless["params"]["first"]["bias"] = jnp.zeros_like(params["params"]["first"]["bias"])
    one, hundred = (heads.apply(biasless, scale * FEATURES).q_values for scale in (jnp.float32(1), jnp.float32(100)))
    np.testing.assert_allclose(one, hundred, atol=1e-3)
    assert np.abs(one - DuelingHeads(3).apply(biasless, FEATURES).q_values).max() > 1e-3


def noisy_layer(sigma=0.5, size=10, features=6):
    layer = NoisyDense(features, sigma)
    return layer, layer.init(jax.random.key(0), jnp.ones((1, size)))


def test_noise_is_factorised_and_its_deviation_starts_at_sigma_over_the_root_of_the_inputs():
    layer, params = noisy_layer()
    assert np.all(params["params"]["kernel_sigma"] == np.float32(0.5 * 10**-0.5))
    assert np.all(params["params"]["bias_sigma"] == np.float32(0.5 * 10**-0.5))

    apply = jax.jit(layer.apply)

    def weights(key):
        """Return kernel and bias with this noise, and their means."""
        ends = jnp.concatenate([jnp.zeros((1, 10)), jnp.eye(10)])
        found = apply(params, ends, rngs={"noise": jax.random.key(key)})
        return np.asarray(found[1:] - found[:1]), np.asarray(found[0])

    kernel, bias = weights(3)
    noise = np.asarray(kernel - params["params"]["kernel"]) / (0.5 * 10**-0.5)
    singular = np.linalg.svd(noise, compute_uv=False)
    assert singular[1] < 1e-5 * singular[0]  # of rank 1
    # f(q) of the outputs is the bias's noise: the kernel's rows are multiples of it.
    q = np.asarray(bias - params["params"]["bias"]) / (0.5 * 10**-0.5)
    np.testing.assert_allclose(noise, np.outer(noise[:, 0] / q[0], q), atol=1e-5)
    draws = np.array([np.asarray(weights(key)[1]) for key in range(400)]) / (0.5 * 10**-0.5)
    # f(x) = sign(x) sqrt|x| of a standard normal x has mean 0 and variance E|x| = sqrt(2 / pi).
    assert abs(draws.mean()) < 0.06
    assert draws.var() == pytest.approx(np.sqrt(2 / np.pi), rel=0.1)
    assert not np.array_equal(weights(1)[0], weights(2)[0])


def test_without_a_key_noisy_layers_use_their_mean_weights():
    layer, params = noisy_layer()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 10)), jnp.float32)
    np.testing.assert_allclose(layer.apply(params, x), dense(np.asarray(x), params["params"]), atol=1e-5)


def noisy_apply(output=OUTPUTS[0]):
    heads = DuelingHeads(3, output=output, noisy_sigma=0.5)
    taus = 5 if isinstance(output, ImplicitQuantiles) else None
    return make_apply(heads, num_taus=taus), heads.init(jax.random.key(0), FEATURES)


def test_every_layer_of_the_heads_is_noisy_with_noise_of_its_own():
    apply, params = noisy_apply()
    layers = params["params"]
    assert all("kernel_sigma" in layer for layer in layers.values())
    assert {"advantage_first", "value_first", "advantage_output", "value_output"} <= set(layers)
    base = apply(params, FEATURES).q_values
    np.testing.assert_array_equal(base, apply(params, FEATURES).q_values)
    noisy = [apply(params, FEATURES, NetworkKeys(jax.random.key(i))).q_values for i in range(2)]
    assert np.abs(noisy[0] - base).max() > 1e-3
    assert np.abs(noisy[0] - noisy[1]).max() > 1e-3
    # Equal layers would have equal noise if they shared a key: the first layers of both heads have the same shape.
    equal = jax.tree.map(lambda x: x, params)
    equal["params"]["value_first"] = equal["params"]["advantage_first"]
    heads = DuelingHeads(3, noisy_sigma=0.5)
    _, state = heads.apply(
        equal, FEATURES, rngs={"noise": jax.random.key(0)}, capture_intermediates=True, mutable="intermediates"
    )
    outputs = {name: layer["__call__"][0] for name, layer in state["intermediates"].items() if name != "__call__"}
    assert np.abs(outputs["advantage_first"] - outputs["value_first"]).max() > 1e-3


def test_the_first_noisy_layers_compute_in_bfloat16_if_the_network_does():
    heads = DuelingHeads(3, noisy_sigma=0.5, dtype=jnp.bfloat16)
    params = random_params(heads, FEATURES)
    noise = {"noise": jax.random.key(1)}
    values = heads.apply(params, FEATURES, rngs=noise).q_values
    assert values.dtype == jnp.float32
    exact = DuelingHeads(3, noisy_sigma=0.5).apply(params, FEATURES, rngs=noise).q_values
    np.testing.assert_allclose(values, exact, atol=0.1)
    program = jax.jit(heads.apply).lower(params, FEATURES).as_text()
    assert len(re.findall(r"stablehlo.dot_general.*bf16", program)) == 2
    assert len(re.findall(r"stablehlo.dot_general.*f32>", program)) == 4


def test_the_online_selecting_and_target_network_of_an_update_have_three_independent_noises():
    keys = estimate_keys(jax.random.key(0), 4, None)
    data = [tuple(np.asarray(jax.random.key_data(key.noise))) for key in keys]
    online, target, next_online, next_target = data
    assert len({online, next_online, next_target}) == 3
    assert target == next_target  # one target network, one noise, at both observations
    again = estimate_keys(jax.random.key(1), 4, None)
    assert not set(data) & {tuple(np.asarray(jax.random.key_data(key.noise))) for key in again}


def test_fractions_differ_between_samples_and_between_the_evaluations_of_an_update():
    keys = estimate_keys(jax.random.key(0), 4, None)
    apply, params = noisy_apply(ImplicitQuantiles(cosines=6))
    taus = np.stack([np.asarray(apply(params, FEATURES, key).taus) for key in keys])
    assert taus.shape == (4, 4, 5)
    assert len(np.unique(taus)) == taus.size
    assert np.all((taus > 0) & (taus < 1))
    fixed = apply(params, FEATURES, NetworkKeys(jax.random.key(0))).taus
    np.testing.assert_allclose(fixed, np.tile(np.asarray(midpoints(32)), (4, 1)), atol=1e-6)


def test_a_function_of_your_own_may_return_values_or_outputs():
    values = jnp.ones((2, 3))
    for returned in (values, QOutputs(values)):
        outputs = apply_from(lambda params, obs, returned=returned: returned)({}, None)
        assert isinstance(outputs, QOutputs)
        np.testing.assert_array_equal(outputs.q_values, values)
