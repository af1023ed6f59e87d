"""Programs compiled with options of our own: outermost, nested, and where the backend does not know them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn import compilation
from jaxdqn.compilation import compiler_options, jit

X = jnp.asarray(np.random.default_rng(0).normal(size=(64, 64)), jnp.float32)


@pytest.fixture(autouse=True)
def fresh():
    """Options are asked for once a process."""
    compiler_options.cache_clear()
    yield
    compiler_options.cache_clear()


def test_no_program_is_handed_to_ynnpack():
    if jax.default_backend() != "cpu" or compiler_options() is None:
        pytest.skip("this backend has no such option")
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
def test_it_can_be_called_within_every_transformation(transform):
    np.testing.assert_allclose(transform(jit(jnp.sin))(X), transform(jnp.sin)(X), rtol=1e-6)


def test_donated_buffers_are_given_up():
    x = X + 1
    jit(lambda x: x + 1, donate_argnums=0)(x)
    assert x.is_deleted()


def test_an_option_that_is_not_known_is_left_out(monkeypatch):
    monkeypatch.setattr(compilation, "_CPU_OPTIONS", {"xla_no_such_option": ""})
    assert compiler_options() is None
    np.testing.assert_allclose(jit(jnp.sin)(X), jnp.sin(X), rtol=1e-6)


def test_other_backends_need_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options() is None
