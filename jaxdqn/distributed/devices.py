"""The devices that JAX finds, and the cache of the programs that it compiles for them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import jax

_JAX_HINT = r"\s*\((set|you may need).*\)$"  # JAX's own hint, for programmers


def find_devices() -> list[jax.Device]:
    """Return JAX's devices of this process.

    Raises:
        ValueError: If JAX finds none on the platform that `JAX_PLATFORMS` names.
    """
    try:
        return jax.local_devices()
    except (AssertionError, RuntimeError) as error:  # AssertionError: the platform's plugin is not installed
        reason = (str(error).strip() or "its plugin for JAX is not installed").splitlines()[0]
        platforms = jax.config.values["jax_platforms"]
        where = f"JAX_PLATFORMS {platforms!r} gives" if platforms else "JAX finds"
        fix = "; unset it, or set it to cpu" if platforms else ""
        raise ValueError(f"{where} no device: {re.sub(_JAX_HINT, '', reason).rstrip('.')}{fix}") from error


def enable_compilation_cache() -> None:
    """Cache compiled programs across processes, in `~/.cache/jaxdqn` (`$XDG_CACHE_HOME/jaxdqn`).

    If the user has set JAX's own cache folder, that one is used. If it cannot be written, JAX warns and compiles.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        try:
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxdqn"
        except RuntimeError:  # the user has no home folder, as in some containers
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
