"""`Conv` against `flax.linen.Conv`, another implementation of the same definition."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.networks.convolution import Conv, default_implementation, micro_batch_size

pytestmark = pytest.mark.usefixtures("strict_promotion")

both = pytest.mark.parametrize("implementation", ["channels_last", "xla"])

# Image, channels, kernel and strides. 9 - 3 = 6 is divisible by 2, 10 - 3 = 7 is not; wide and tall kernels; the whole
# image as one patch; strides that divide the kernel, with and without remaining pixels; few and many channels; strides
# larger than the kernel, with images that end within a block.
CASES = [
    ((11, 10), 3, (4, 6), (2, 3)),
    ((8, 12), 4, (4, 4), (4, 4)),
    ((9, 7), 2, (6, 3), (3, 1)),
    ((9, 10), 1, (3, 3), (2, 2)),
    ((11, 9), 3, (4, 2), (3, 2)),
    ((8, 13), 8, (2, 5), (1, 3)),
    ((6, 7), 3, (1, 1), (4, 1)),
    ((5, 4), 8, (5, 4), (2, 1)),
    ((9, 10), 16, (4, 4), (2, 2)),
    ((10, 9), 17, (3, 4), (2, 3)),
    ((7, 9), 16, (2, 1), (3, 4)),
]


def random(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def make_pair(kernel_size, strides, implementation, padding="VALID"):
    """Return our module and Flax's, with five output channels."""
    options = {"bias_init": nn.initializers.normal(), "padding": padding}
    ours = Conv(5, kernel_size, strides, implementation=implementation, **options)
    return ours, nn.Conv(5, kernel_size, strides, **options)


def values_and_gradients(module):
    """Return `(params, inputs) -> (outputs, (gradients of params, gradient of inputs))`, jitted to compile only once.

    The gradients are those of a sum in which every output has a different weight.
    """

    def loss(params, inputs):
        outputs = module.apply(params, inputs)
        return (outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)).sum(), outputs

    def run(params, inputs):
        gradients, outputs = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, inputs)
        return outputs, gradients

    return jax.jit(run)


@both
@pytest.mark.parametrize(
    ("image", "channels", "kernel_size", "strides", "padding"),
    [(*case, "VALID") for case in CASES]
    + [(*case, "SAME") for case in CASES[:3]]
    + [((2, 3), 4, (5, 4), (2, 1), "SAME")],
)
def test_values_and_gradients_equal_those_of_flax_with_the_same_parameters(
    image, channels, kernel_size, strides, padding, implementation
):
    ours, flax = make_pair(kernel_size, strides, implementation, padding)
    inputs = random((2, *image, channels), seed=0)
    kernel, bias = random((*kernel_size, channels, 5), seed=1), random((5,), seed=2)
    params = {"params": {"kernel": kernel, "bias": bias}}
    result, (params_gradient, inputs_gradient) = values_and_gradients(ours)(params, inputs)
    expected, (params_expected, inputs_expected) = values_and_gradients(flax)(params, inputs)
    # Sums of up to 256 products of order 1, in float32 and in another order.
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(inputs_gradient, inputs_expected, rtol=1e-5, atol=2e-5)
    for name in ("kernel", "bias"):
        mine, theirs = (tree["params"][name] for tree in (params_gradient, params_expected))
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=2e-5, err_msg=name)


@both
def test_parameters_have_the_names_and_shapes_of_flax(implementation):
    pair = make_pair((4, 2), (1, 1), implementation)
    inputs = jnp.zeros((1, 6, 6, 3))
    made = (jax.eval_shape(module.init, jax.random.key(0), inputs) for module in pair)
    mine, theirs = (jax.tree.map(lambda x: x.shape, params) for params in made)
    assert mine == theirs == {"params": {"kernel": (4, 2, 3, 5), "bias": (5,)}}


@both
@pytest.mark.parametrize(("image", "kernel"), [((5, 9), "6x3"), ((9, 2), "6x3"), ((5, 2), "6x3")])
def test_a_kernel_larger_than_the_image_is_refused_with_both_sizes(image, kernel, implementation):
    conv = Conv(2, (6, 3), implementation=implementation)
    with pytest.raises(ValueError, match=f"kernel_size {kernel} does not fit images of {image[0]}x{image[1]}"):
        conv.init(jax.random.key(0), jnp.zeros((1, *image, 1)))


def test_gradients_are_also_convolutions_with_channels_last():
    params = {"params": {"kernel": jnp.ones((3, 3, 3, 5)), "bias": jnp.ones(5)}}
    found = {}
    for implementation in ("channels_last", "xla"):
        program = values_and_gradients(Conv(5, (3, 3), implementation=implementation))
        lowered = program.lower(params, jnp.ones((2, 9, 9, 3))).as_text()
        found[implementation] = re.findall(r"dim_numbers = (\[[^\]]*\]x\[[^\]]*\])", lowered)
    assert found["channels_last"] == ["[b, 0, 1, f]x[0, 1, i, o]"] * 3  # forward, and gradients of inputs and kernel
    assert len(set(found["xla"])) == 3  # three layouts, which `channels_last` avoids


@both
def test_gradients_of_gradients_equal_those_of_flax(implementation):
    ours, flax = make_pair((3, 3), (2, 2), implementation)
    inputs, params = random((2, 7, 7, 3), seed=0), {"params": {"kernel": random((3, 3, 3, 5), 1), "bias": random(5, 2)}}

    def penalty(module, inputs):
        return (jax.grad(lambda x: jnp.tanh(module.apply(params, x)).sum())(inputs) ** 2).sum()

    mine, theirs = (jax.jit(jax.grad(lambda x, m=module: penalty(m, x)))(inputs) for module in (ours, flax))
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.implicit_promotion
@both
def test_bfloat16_is_used_to_compute_and_parameters_stay_float32(implementation):
    conv = Conv(5, (3, 3), (2, 2), implementation=implementation, dtype=jnp.bfloat16)
    inputs = random((2, 9, 9, 3), seed=0)
    params = conv.init(jax.random.key(0), inputs)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}
    result, (gradient, _) = values_and_gradients(conv)(params, inputs)
    assert result.dtype == jnp.bfloat16
    assert gradient["params"]["kernel"].dtype == jnp.float32
    exact = conv.clone(dtype=None).apply(params, inputs)
    np.testing.assert_allclose(result.astype(jnp.float32), exact, atol=0.1)
    assert np.abs(result.astype(jnp.float32) - exact).max() > 1e-3


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [
        (256, 32),
        (32, 32),
        (128, 32),
        (100, 25),
        (70, 35),
        (96, 32),
        (80, 40),
        (31, 31),
        (8, 8),
        (106, 106),
        (1, 1),
    ],
)
def test_micro_batch_size_is_the_divisor_nearest_to_32_on_the_cpu(monkeypatch, batch_size, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert micro_batch_size(batch_size) == expected


def test_a_gpu_uses_the_whole_batch_and_the_convolution_of_xla(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert micro_batch_size(256) == 256
    assert default_implementation() == "xla"


def test_the_cpu_uses_channels_last(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert default_implementation() == "channels_last"
