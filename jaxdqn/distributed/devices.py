"""The devices that JAX finds, and where it keeps the programs that it compiles for them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import jax

_OWN_HINT = r"\s*\((set|you may need).*\)$"  # of JAX, for programmers


def find_devices() -> list[jax.Device]:
    """Return JAX's devices of this process.

    Raises:
        ValueError: If JAX finds none on the platform that `JAX_PLATFORMS` names.
    """
    try:
        return jax.local_devices()
    except (AssertionError, RuntimeError) as error:  # the former for a platform whose plugin is not installed
        said = (str(error).strip() or "its plugin for JAX is not installed").splitlines()[0]
        asked = jax.config.values["jax_platforms"]
        where = f"JAX_PLATFORMS {asked!r} gives" if asked else "JAX finds"
        mend = "; unset it, or set it to cpu" if asked else ""
        raise ValueError(f"{where} no device: {re.sub(_OWN_HINT, '', said).rstrip('.')}{mend}") from error


def enable_compilation_cache() -> None:
    """Keep compiled programs from one process to the next, in `~/.cache/jaxdqn` (`$XDG_CACHE_HOME/jaxdqn`).

    Where the user has named a folder to JAX, it is that one. Where it cannot be written, JAX warns and compiles.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        try:
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxdqn"
        except RuntimeError:  # a user without a home, as in some containers
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
