"""How programs are compiled and kept: on the CPU with XLA's own convolution and not YNNPACK's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


@lru_cache
def compiler_options() -> dict[str, str] | None:
    """Options for `jax.jit` with which `Conv` is fastest; None where the backend needs none, or does not know them.

    jaxlib 0.10 to 0.12 hand convolutions and matrix products on the CPU to YNNPACK by default. Without it an update of
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
    """The same function, of which `jax.vmap` on the CPU makes a loop.

    Convolutions with kernels of their own for each of several seeds would become one grouped convolution, which XLA
    has no fast form of there: eight seeds took 17 times the time of one. Elsewhere `vmap` maps it as it maps all else.
    """
    return jax.custom_batching.sequential_vmap(function) if jax.default_backend() == "cpu" else function


class jit:  # noqa: N801, it takes the place of jax.jit
    """A function compiled with `compiler_options`.

    Called within another transformation of JAX, where a program of its own cannot be compiled, it is a plain
    `jax.jit`: give `compiler_options()` to the outermost `jax.jit` yourself.
    """

    def __init__(self, function: Callable[..., Any], *, donate_argnums: int | Sequence[int] = ()) -> None:
        """Bind a function; it is traced when it is called.

        Args:
            function: Pure function of arrays.
            donate_argnums: Arguments whose buffers the results may take.
        """
        self._nested = jax.jit(function, donate_argnums=donate_argnums)
        self._outermost = jax.jit(function, donate_argnums=donate_argnums, compiler_options=compiler_options())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's results."""
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return self._nested(*args, **kwargs)
        try:
            return self._outermost(*args, **kwargs)
        except ValueError as error:  # arguments that are known already can stand within a transformation, too
            if "compiler_options" not in str(error):
                raise
            return self._nested(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """`jax.jit(...).lower` of the outermost program, to look at what is compiled."""
        return self._outermost.lower(*args, **kwargs)
