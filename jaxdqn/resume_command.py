"""The commands that a run prints for the user to type."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path


def resume_hint(folder: Path) -> str:
    """Return a line with the command that resumes a run, and the frame from which it does."""
    states = sorted(path.name for path in (folder / "states").glob("*[0-9]"))
    effect = f"resumes from frame {int(states[-1][:10]):,}" if states else "starts again from frame 0"
    return f"`jaxdqn resume {quote_path(folder)}{env_flags(folder)}` {effect}"


def env_flags(folder: Path, *, played: bool = False) -> str:
    """Return the flags for a run's environments whose ids import modules, which the user must therefore name.

    Args:
        folder: The run's folder.
        played: Whether the flags are for `jaxdqn evaluate` and `play`, whose `--env` is the environment to play on.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        envs = {"env": config["env"], "eval-env": config.get("eval_env")}
    except (OSError, ValueError, KeyError, TypeError):  # the command itself will report it
        return ""
    if played:
        envs = {"env": envs["eval-env"] or envs["env"]}
    return "".join(f" --{flag} {shlex.quote(env)}" for flag, env in envs.items() if ":" in str(env or ""))


def quote_path(folder: Path) -> str:
    """Quote a folder for a shell, for a command that is printed for the user to type."""
    name = relative_path(folder)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)  # otherwise it would be read as a flag


def relative_path(folder: Path) -> str:
    """Return a folder's path relative to the current folder if it is inside it, or else unchanged."""
    with contextlib.suppress(OSError, ValueError):  # the current folder may have been deleted
        return str(folder.relative_to(Path.cwd()))
    return str(folder)
