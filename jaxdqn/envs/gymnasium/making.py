"""Make environments by id with `gymnasium.make`; its many errors become one line that says what to do."""

from __future__ import annotations

import importlib.util
import re
import warnings
from typing import Any, NamedTuple

import gymnasium as gym

from jaxdqn.config_fields import is_atari
from jaxdqn.envs.atari import AtariGame


class _Package(NamedTuple):
    """A package with environments that gymnasium does not import itself.

    Attributes:
        pip: Name for pip.
        module: Name for `import`.
        registers: Whether the import registers its ids.
    """

    pip: str
    module: str
    registers: bool = True


_ATARI = _Package("ale-py", "ale_py")
_MINATAR = _Package("minatar", "minatar.gym", registers=False)
_MINIGRID = _Package("minigrid", "minigrid")
_BY_ID = {r"ALE/|.*(NoFrameskip|Deterministic|-ram)": _ATARI, "MinAtar/": _MINATAR, "MiniGrid-|BabyAI-": _MINIGRID}
_PIP = {each.module.split(".")[0]: each.pip for each in _BY_ID.values()} | {"Box2D": "box2d"}


def describe_error(error: BaseException) -> str:
    """Return the message of an error in one line, after its type if the message alone is not clear."""
    message = " ".join(str(error).split())
    return (
        message
        if isinstance(error, gym.error.Error | ImportError | TypeError | ValueError) and message
        else (f"{type(error).__name__}: {message}".removesuffix(": "))
    )


def make_by_id(env: str, *, render: bool, **options: Any) -> gym.Env:
    """Call `gymnasium.make`, or for an Atari game `AtariGame`; raise each of many errors as a `ValueError` of one line.

    Args:
        env: Gymnasium id; `"module:id"` imports the module first, which registers the id.
        render: Whether the environment must be able to render itself.
        options: Arguments of its constructor.

    Raises:
        ValueError: If the id is unknown or malformed, a package is missing, or the constructor fails.
    """
    if render:  # not every environment takes this argument
        options["render_mode"] = "rgb_array"
    try:
        with warnings.catch_warnings():
            if render:  # the code that needs the picture reports the problem
                warnings.filterwarnings("ignore", r"(?s).*is not in the possible render_modes")
            if is_atari(env):
                return AtariGame(env, **options)
            return gym.make(env, disable_env_checker=True, **options)
    except (Exception, SystemExit) as error:  # the constructor may raise anything, and a module may exit
        if render and "unexpected keyword argument 'render_mode'" in str(error):
            raise ValueError(
                f"env {env!r} cannot be rendered: its constructor takes no render_mode; add that argument, or set "
                "pixels to False"
            ) from error
        raise ValueError(f"env {env!r} cannot be made: {_with_hint(env, error)}") from error


def _with_hint(env: str, error: BaseException) -> str:
    """Return the message of an error of `gymnasium.make`, and what to do about it if that is known."""
    if env.count(":") > 1:
        return "the id has more than one colon: use 'id' or 'module:id'"
    message = describe_error(error)
    if isinstance(error, gym.error.NamespaceNotFound | gym.error.NameNotFound):
        return _hint_for_unknown_id(env, message)
    name = _missing_module(error)
    if name in _PIP:  # before gymnasium's own hint, which for Box2D installs pygame-ce over pygame
        return f"{name} is not installed: python3 -m pip install {_PIP[name]}"
    if name is None or isinstance(error, gym.error.DependencyNotInstalled):
        return message
    return f"module {name!r} is not found: install it, or add its folder to PYTHONPATH"


def _missing_module(error: BaseException | None) -> str | None:
    """Return the name of the module that was not found; None for an error with another cause."""
    while error is not None:  # gymnasium raises its own error from the one with the name
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            return error.name
        error = error.__cause__
    return None


def _hint_for_unknown_id(env: str, message: str) -> str:
    """Return what to do about an id that no imported module has registered."""
    env_id = env.split(":")[-1]
    package = next((package for pattern, package in _BY_ID.items() if re.match(pattern, env_id)), None)
    if "Did you mean" in message or (":" in env and (package is None or package.registers)):
        return message
    if package is None:
        return f"{message} If a module registers it, add its name: 'module:{env}'"
    spec = importlib.util.find_spec(package.module.split(".")[0])
    installed = spec is not None and spec.origin is not None  # a plain folder of that name has no origin
    install = "" if installed else f"python3 -m pip install {package.pip}, and "
    if package.registers:
        return f"gymnasium does not import it by itself: {install}use '{package.module}:{env_id}'"
    return (
        f"gymnasium does not import it by itself: {install}use 'MODULE:{env_id}', where MODULE is a Python file of "
        f"yours with `import {package.module}; {package.module}.register_envs()`"
    )
