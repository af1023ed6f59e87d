"""`Conv` against `flax.linen.Conv`, which is another implementation of the same definition."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.convolution import Conv, default_implementation, micro_batch_size

both = pytest.mark.parametrize("implementation", ["patches", "xla"])

# Image, channels, kernel and strides. 9 - 3 = 6 is divided by 2, 10 - 3 = 7 is not; kernels wide and tall; the whole
# image as one patch; strides that divide the kernel, with pixels left over and without.
CASES = [
    ((11, 10), 3, (4, 6), (2, 3)),
    ((8, 12), 4, (4, 4), (4, 4)),
    ((9, 7), 2, (6, 3), (3, 1)),
    ((9, 10), 1, (3, 3), (2, 2)),
    ((11, 9), 3, (4, 2), (3, 2)),
    ((8, 13), 8, (2, 5), (1, 3)),
    ((6, 7), 3, (1, 1), (4, 1)),
    ((5, 4), 8, (5, 4), (2, 1)),
]


def random(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def make_pair(kernel_size, strides, implementation):
    """Our module and Flax's, five output channels."""
    ours = Conv(5, kernel_size, strides, bias_init=nn.initializers.normal(), implementation=implementation)
    return ours, nn.Conv(5, kernel_size, strides, padding="VALID", bias_init=nn.initializers.normal())


def values_and_gradients(module):
    """`(params, inputs) -> (outputs, (gradients of params, gradient of inputs))`, jitted: eager slices compile apiece.

    The gradients are those of a sum in which every output has another weight.
    """

    def loss(params, inputs):
        outputs = module.apply(params, inputs)
        return (outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)).sum(), outputs

    def run(params, inputs):
        gradients, outputs = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, inputs)
        return outputs, gradients

    return jax.jit(run)


@both
@pytest.mark.parametrize(("image", "channels", "kernel_size", "strides"), CASES)
def test_values_and_gradients_equal_those_of_flax_with_the_same_parameters(
    image, channels, kernel_size, strides, implementation
):
    ours, flax = make_pair(kernel_size, strides, implementation)
    inputs = random((2, *image, channels), seed=0)
    kernel, bias = random((*kernel_size, channels, 5), seed=1), random((5,), seed=2)
    params = {"params": {"kernel": kernel, "bias": bias}}
    result, (params_gradient, inputs_gradient) = values_and_gradients(ours)(params, inputs)
    expected, (params_expected, inputs_expected) = values_and_gradients(flax)(params, inputs)
    # Sums of up to 160 products of order 1, in float32 and in another order.
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


@pytest.mark.parametrize(("implementation", "expected"), [("patches", 0), ("xla", 3)])
def test_patches_leave_no_convolution_in_the_program(implementation, expected):
    conv = Conv(5, (3, 3), (2, 2), implementation=implementation)
    params = {"params": {"kernel": jnp.ones((3, 3, 3, 5)), "bias": jnp.ones(5)}}
    lowered = values_and_gradients(conv).lower(params, jnp.ones((2, 9, 9, 3)))
    # XLA's count, 3, shows that the search would find one: forward, and gradients of kernel and inputs.
    assert len(re.findall(r"stablehlo\.convolution\b", lowered.as_text())) == expected
    if expected == 0:  # what XLA makes of its own is the backend's choice
        assert not re.search(r"\bconvolution\(", lowered.compile().as_text())


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [
        (256, 8),
        (32, 8),
        (16, 8),
        (8, 8),
        (12, 6),
        (36, 9),
        (50, 10),
        (7, 7),
        (13, 13),
        (5, 5),
        (31, 31),
        (3, 3),
        (1, 1),
    ],
)
def test_micro_batches_are_the_divisor_nearest_to_8_on_the_cpu(monkeypatch, batch_size, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert micro_batch_size(batch_size) == expected


def test_a_gpu_takes_the_whole_batch_and_the_plain_convolution(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert micro_batch_size(256) == 256
    assert default_implementation() == "xla"


def test_the_cpu_takes_patches(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert default_implementation() == "patches"
    params = {"params": {"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)}}
    assert "stablehlo.convolution" not in jax.jit(Conv(2, (3, 3)).apply).lower(params, jnp.ones((1, 5, 5, 1))).as_text()
