"""Versions of the software that a run's numbers depend on."""

from __future__ import annotations

import importlib.metadata
import platform

PACKAGES = ("jaxdqn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "gymnasium", "numpy", "pillow", "pygame")
OPTIONAL = ("ale-py", "gymnax")


def versions() -> dict[str, str]:
    """Return the versions of Python, the platform and the packages that a run's numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in (*PACKAGES, *OPTIONAL):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package in PACKAGES:
                found[package] = "not installed"
    return found
