"""Compilation of programs: on the CPU with XLA's own convolutions and not YNNPACK's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


@lru_cache
def compiler_options() -> dict[str, str] | None:
    """Return the options for `jax.jit` that make `Conv` fastest; None if the backend needs none or does not know them.

    On the CPU, jaxlib 0.10 to 0.12 use YNNPACK for convolutions and matrix products by default. Without it an update of
    TorchRL's network with batches of 256 takes 0.55 of the time.
    """
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(jnp.negative, compiler_options=_CPU_OPTIONS)(jnp.zeros(()))
    except jax.errors.JaxRuntimeError:  # an option that this jaxlib does not have
        return None
    return _CPU_OPTIONS


def sequential_vmap_on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function, but `jax.vmap` of it is a loop on the CPU.

    Convolutions with different kernels for each of several seeds would become one grouped convolution, which is slow in
    XLA on the CPU: eight seeds took 17 times the time of one. On other backends `vmap` works as usual.
    """
    return jax.custom_batching.sequential_vmap(function) if jax.default_backend() == "cpu" else function


@runtime_checkable
class Program(Protocol):
    """A jitted function, which can also be compiled before it is called."""

    def __call__(self, *args: Any) -> Any:
        """Call it, and compile it first if it is not compiled."""

    def lower(self, *args: Any) -> Any:
        """Lower it, as `jax.jit(...).lower` does."""


class jit:  # noqa: N801, it replaces jax.jit
    """A function compiled with `compiler_options`.

    Inside another transformation of JAX, which cannot compile a separate program, it is a plain `jax.jit`: pass
    `compiler_options()` to the outermost `jax.jit` yourself.
    """

    def __init__(self, function: Callable[..., Any], *, donate_argnums: int | Sequence[int] = ()) -> None:
        """Wrap a function; it is traced when it is called.

        Args:
            function: Pure function of arrays.
            donate_argnums: Arguments whose buffers the results may reuse.
        """
        self._nested = jax.jit(function, donate_argnums=donate_argnums)
        self._outermost = jax.jit(function, donate_argnums=donate_argnums, compiler_options=compiler_options())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function and return its results."""
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return self._nested(*args, **kwargs)
        try:
            return self._outermost(*args, **kwargs)
        except ValueError as error:  # concrete arguments, but inside a transformation
            if "compiler_options" not in str(error):
                raise
            return self._nested(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """Lower the outermost program, as `jax.jit(...).lower` does, to compile it or to look at it."""
        return self._outermost.lower(*args, **kwargs)
