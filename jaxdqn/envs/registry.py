"""The registry of environments by id: their gymnasium form, their functional form, or both.

Functional forms are named by `"module:function"`, so that a process that only steps gymnasium environments never
imports JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym

if TYPE_CHECKING:
    from jaxdqn.envs.functional.env import FunctionalEnv

MakeFunctional = Callable[..., "FunctionalEnv"]
"""`(*, pixels, frame_size) -> FunctionalEnv`; `pixels` has a default."""


class _Entry(NamedTuple):
    """A functional form: its factory, or `"module:function"`, and whether the gymnasium form is made from it."""

    functional: str | MakeFunctional
    makes_gymnasium: bool


_ENTRIES: dict[str, _Entry] = {}
"""Environments with a functional form, by id. All others are in gymnasium's registry alone."""


def register_env(
    env_id: str,
    *,
    gymnasium: str | Callable[..., gym.Env] | None = None,
    functional: str | MakeFunctional | None = None,
) -> None:
    """Register an environment for `gymnasium.make` and, if it has a functional form, for `--loop device`.

    Args:
        env_id: Id in gymnasium's format, such as `"mine/Grid-v0"`.
        gymnasium: Its gymnasium form: an entry point for `gymnasium.register`. None: the id is registered with
            gymnasium already, or the functional form is used (`GymnasiumEnv`).
        functional: Its functional form: `(*, pixels, frame_size) -> FunctionalEnv`, or `"module:function"`.

    Raises:
        ValueError: If neither form is given, or the id is malformed.
    """
    if gymnasium is None and functional is None:
        raise ValueError(f"env {env_id!r} has no form: give gymnasium, functional or both")
    made_of = gymnasium is None and env_id not in gym.registry
    try:
        if made_of:
            gym.register(env_id, entry_point=partial(_make_gymnasium, env_id))
        elif gymnasium is not None:
            gym.register(env_id, entry_point=gymnasium)
    except gym.error.Error as error:
        raise ValueError(f"env {env_id!r} cannot be registered: {' '.join(str(error).split())}") from error
    if functional is not None:
        _ENTRIES[env_id] = _Entry(functional, made_of)


def is_made_of_functional(env_id: str) -> bool:
    """Return whether the gymnasium form of an id is made from its functional form, and takes its options."""
    return env_id in _ENTRIES and _ENTRIES[env_id].makes_gymnasium


def functional_ids() -> list[str]:
    """Return the ids that have a functional form."""
    return list(_ENTRIES)


def functional_maker(env_id: str) -> MakeFunctional:
    """Return the function that makes the functional form of an id in `functional_ids`."""
    maker = _ENTRIES[env_id].functional
    if isinstance(maker, str):
        module, _, name = maker.partition(":")
        return getattr(import_module(module), name)
    return maker


def _make_gymnasium(env_id: str, render_mode: str | None = None, **options: Any) -> gym.Env:
    from jaxdqn.envs.functional.adapters import GymnasiumEnv  # imports JAX

    return GymnasiumEnv(functional_maker(env_id)(**options), render_mode)
