"""Jitted programs over the devices of several processes, called with each process's own arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from jaxdqn.compilation import jit


class GlobalProgram:
    """A jitted program over a mesh that may span processes.

    Arguments and results are arrays on this process's devices. The first argument is donated.
    """

    def __init__(self, function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> None:
        """Map a function over the devices of a mesh.

        Args:
            function: The function that each device runs on its part of the arguments.
            mesh: Devices of this process, or of all processes.
            in_specs: How each argument is split over the devices; see `jax.shard_map`.
            out_specs: The same for each result.
        """
        self._mesh, self._local_mesh, self._in_specs = mesh, mesh.local_mesh, in_specs
        self._spans_processes = mesh != self._local_mesh
        mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        self._program = jit(mapped, donate_argnums=0)

    def __call__(self, *args: Any) -> Any:
        """Run the program on arrays on this process's devices, and return results on the same devices."""
        args = self._with_missing(args)
        if not self._spans_processes:
            return self._program(*args)
        results = self._program(*self._globalise(args))
        return jax.tree.map(lambda x: _reshard(self._local_mesh, x), results)

    def lower(self, *args: Any) -> Any:
        """Lower the program for these arguments, like `lower` of a jitted function."""
        args = self._with_missing(args)
        return self._program.lower(*(self._globalise(args) if self._spans_processes else args))

    def _with_missing(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments with None for those at the end that the caller left out."""
        return (*args, *(None,) * (len(self._in_specs) - len(args)))

    def _globalise(self, args: Any) -> Any:
        """Return global arrays made of this process's replicated and sharded arrays."""

        def globalise(spec: P, tree: Any) -> Any:
            sharding = NamedSharding(self._local_mesh, spec)  # most arrays have it already
            local = jax.tree.map(lambda x: jax.device_put(x, sharding), tree)
            return jax.tree.map(lambda x: _reshard(self._mesh, x), local)

        return jax.tree.map(globalise, self._in_specs, args, is_leaf=lambda x: isinstance(x, P))


def _reshard(mesh: Mesh, x: Array) -> Array:
    """Return the same buffers as an array over another mesh: this process's devices, or those of all processes."""
    before, spec = x.sharding.mesh, x.sharding.spec  # type: ignore[attr-defined]  # a NamedSharding
    sizes = [
        size if axis >= len(spec) or spec[axis] is None else size * mesh.devices.size // before.devices.size
        for axis, size in enumerate(x.shape)
    ]
    parts = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(tuple(sizes), NamedSharding(mesh, spec), parts)
