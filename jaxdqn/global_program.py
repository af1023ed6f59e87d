"""Programs over the devices of several processes, called with the arrays that each process has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from jaxdqn.compilation import jit


class GlobalProgram:
    """A program over a mesh that may span processes, of and for the arrays of this process; donates the first."""

    def __init__(self, function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> None:
        """Bind a function of one device's part to a mesh.

        Args:
            function: What each device computes.
            mesh: Devices of this process, or of all.
            in_specs: How each argument is split over the devices, as `jax.shard_map` takes it.
            out_specs: The same of each result.
        """
        self._mesh, self._here, self._in_specs = mesh, mesh.local_mesh, in_specs
        self._spans = mesh != self._here
        mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        self._program = jit(mapped, donate_argnums=0)

    def __call__(self, *args: Any) -> Any:
        """Run the program on arrays over this process's devices, and give its results as such."""
        if not self._spans:
            return self._program(*args)
        results = self._program(*self._of_all(args))
        return jax.tree.map(lambda x: _reshard(self._here, x), results)

    def lower(self, *args: Any) -> Any:
        """As a jitted function's: what is compiled for these arguments."""
        return self._program.lower(*(self._of_all(args) if self._spans else args))

    def _of_all(self, args: Any) -> Any:
        """Arrays of all processes from what each has: those that are the same everywhere, and those in parts."""

        def place(spec: P, tree: Any) -> Any:
            there = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(self._here, spec)), tree)  # most are already
            return jax.tree.map(lambda x: _reshard(self._mesh, x), there)

        return jax.tree.map(place, self._in_specs, args, is_leaf=lambda x: isinstance(x, P))


def _reshard(mesh: Mesh, x: Array) -> Array:
    """The same buffers, as an array over this process's devices or over those of all."""
    before, spec = x.sharding.mesh, x.sharding.spec  # type: ignore[attr-defined]  # a NamedSharding
    sizes = [
        size if place >= len(spec) or spec[place] is None else size * mesh.devices.size // before.devices.size
        for place, size in enumerate(x.shape)
    ]
    parts = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(tuple(sizes), NamedSharding(mesh, spec), parts)
