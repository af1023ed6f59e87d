"""Programs compiled with our options: outermost, nested, and on a backend that does not know the options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn import compilation
from jaxdqn.compilation import compiler_options, jit

X = jnp.asarray(np.random.default_rng(0).normal(size=(64, 64)), jnp.float32)


@pytest.fixture(autouse=True)
def clear_cache():
    """Clear the cached options, which are otherwise determined once per process."""
    compiler_options.cache_clear()
    yield
    compiler_options.cache_clear()


def test_no_program_uses_ynnpack():
    if jax.default_backend() != "cpu":
        pytest.skip("only for the CPU")
    assert compiler_options() is not None, "this jaxlib does not know the option: updates take twice the time"
    assert "__ynn_fusion" in jax.jit(lambda x: x @ x).lower(X).compile().as_text()
    assert "__ynn_fusion" not in jit(lambda x: x @ x).lower(X).compile().as_text()


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: f,
        jax.jit,
        lambda f: jax.jit(jax.vmap(f)),
        lambda f: lambda x: jax.grad(lambda x: f(x).sum())(x),
        lambda f: lambda x: jax.lax.scan(lambda carry, _: (f(carry), None), x, None, length=1)[0],
    ],
    ids=["alone", "jit", "vmap", "grad", "scan"],
)
def test_jit_can_be_called_inside_every_transformation(transform):
    np.testing.assert_allclose(transform(jit(jnp.sin))(X), transform(jnp.sin)(X), rtol=1e-6)


@pytest.mark.parametrize(
    "within",
    [
        lambda f: jax.jit(lambda y: y + f(X))(X),
        lambda f: jax.lax.scan(lambda carry, _: (carry + f(X), None), X, None, length=1)[0],
        lambda f: jax.lax.cond(True, lambda y: y + f(X), lambda y: y, X),
        lambda f: jax.grad(lambda y: (y * f(X)).sum())(X) + X,
        lambda f: jax.jit(lambda y: jit(lambda x: x + f(y))(X))(X),
    ],
    ids=["jit", "scan", "cond", "grad", "closed over"],
)
def test_jit_can_be_called_inside_a_transformation_with_concrete_arguments(within):
    np.testing.assert_allclose(within(jit(jnp.sin)), X + jnp.sin(X), rtol=1e-5)


def test_an_error_in_the_function_is_raised():
    def refuse(x):
        raise ValueError("not this")

    with pytest.raises(ValueError, match="not this"):
        jit(refuse)(X)


def test_donated_buffers_are_deleted():
    x = X + 1
    jit(lambda x: x + 1, donate_argnums=0)(x)
    assert x.is_deleted()


def test_an_unknown_option_is_not_used(monkeypatch):
    monkeypatch.setattr(compilation, "_CPU_OPTIONS", {"xla_no_such_option": ""})
    assert compiler_options() is None
    np.testing.assert_allclose(jit(jnp.sin)(X), jnp.sin(X), rtol=1e-6)


def test_other_backends_need_no_options(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options() is None
