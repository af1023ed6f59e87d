"""Environments by id: `gymnasium.make`, whose many errors become one line that says what to do."""

from __future__ import annotations

import importlib.util
import re
import warnings
from typing import Any, NamedTuple

import gymnasium as gym


class _Package(NamedTuple):
    """A package that makes environments, and is not imported by gymnasium.

    Attributes:
        pip: What pip installs.
        module: What Python imports.
        registers: Whether the import makes its ids known.
    """

    pip: str
    module: str
    registers: bool = True


_ATARI = _Package("ale-py", "ale_py")
_MINATAR = _Package("minatar", "minatar.gym", registers=False)
_MINIGRID = _Package("minigrid", "minigrid")
_BY_ID = {r"ALE/|.*(NoFrameskip|Deterministic|-ram)": _ATARI, "MinAtar/": _MINATAR, "MiniGrid-|BabyAI-": _MINIGRID}
_PIP = {each.module.split(".")[0]: each.pip for each in _BY_ID.values()} | {"Box2D": "box2d"}


def in_words(error: BaseException) -> str:
    """Return what an error says, in one line; its kind if it says nothing."""
    said = " ".join(str(error).split())
    return (
        said
        if isinstance(error, gym.error.Error | ImportError | TypeError | ValueError) and said
        else (f"{type(error).__name__}: {said}".removesuffix(": "))
    )


def make_by_id(env: str, *, render: bool, **options: Any) -> gym.Env:
    """Call `gymnasium.make`; raise each of its many errors as a `ValueError` of one line.

    Args:
        env: Gymnasium id; `"module:id"` imports the module first, which registers the id.
        render: Whether the environment must draw itself.
        options: Arguments of its constructor.

    Raises:
        ValueError: If the id is unknown, malformed, or needs what is not installed.
    """
    if render:  # not every environment has that argument
        options["render_mode"] = "rgb_array"
    try:
        with warnings.catch_warnings():
            if render:  # the code that needs the picture reports it
                warnings.filterwarnings("ignore", r"(?s).*is not in the possible render_modes")
            return gym.make(env, disable_env_checker=True, **options)
    except (Exception, SystemExit) as error:  # the constructor may raise anything, and a module may exit
        if render and "unexpected keyword argument 'render_mode'" in str(error):
            raise ValueError(
                f"env {env!r} cannot be made to draw itself: its constructor takes no render_mode; add that argument, "
                "or do without pictures (pixels False)"
            ) from error
        raise ValueError(f"env {env!r} cannot be made: {_with_hint(env, error)}") from error


def _with_hint(env: str, error: BaseException) -> str:
    """Return what an error of `gymnasium.make` says, and what to do about it if that is known."""
    if env.count(":") > 1:
        return "the id has more than one colon: use 'id' or 'module:id'"
    said = in_words(error)
    if isinstance(error, gym.error.NamespaceNotFound | gym.error.NameNotFound):
        return _unknown(env, said)
    name = _missing_module(error)
    if name in _PIP:  # before gymnasium's own hint, which for Box2D installs pygame-ce over pygame
        return f"{name} is not installed: python3 -m pip install {_PIP[name]}"
    if name is None or isinstance(error, gym.error.DependencyNotInstalled):
        return said
    return f"module {name!r} is not found: install it, or name the folder that holds it in PYTHONPATH"


def _missing_module(error: BaseException | None) -> str | None:
    """Return the name of the module that was not found; None for an error with another cause."""
    while error is not None:  # gymnasium raises its own errors from the one that has the name
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            return error.name
        error = error.__cause__
    return None


def _unknown(env: str, said: str) -> str:
    """Say what to do about an id that no imported module has registered."""
    own = env.split(":")[-1]
    package = next((package for pattern, package in _BY_ID.items() if re.match(pattern, own)), None)
    if "Did you mean" in said or (":" in env and (package is None or package.registers)):
        return said
    if package is None:
        return f"{said} If a module registers it, name that, too: 'module:{env}'"
    found = importlib.util.find_spec(package.module.split(".")[0])
    there = found is not None and found.origin is not None  # a folder of that name has none
    install = "" if there else f"python3 -m pip install {package.pip}, and "
    if package.registers:
        return f"gymnasium does not know it by itself: {install}use '{package.module}:{own}'"
    return (
        f"gymnasium does not know it by itself: {install}use 'MODULE:{own}', where MODULE is a file of yours with "
        f"`import {package.module}; {package.module}.register_envs()`"
    )
