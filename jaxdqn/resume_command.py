"""The commands that a run prints for its user to type."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path


def resume_hint(folder: Path) -> str:
    """The command that goes on with a run, and from where."""
    kept = sorted(path.name for path in (folder / "states").glob("*[0-9]"))
    where = f"from frame {int(kept[-1][:10]):,}" if kept else "from its beginning"
    return f"`jaxdqn resume {quote_path(folder)}{env_flags(folder)}` goes on {where}"


def env_flags(folder: Path, *, played: bool = False) -> str:
    """The flags that name a run's environments, where their ids import modules and so must be named.

    Args:
        folder: The run's.
        played: For `jaxdqn evaluate` and `play`, whose `--env` is the one that is played on.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        envs = {"env": config["env"], "eval-env": config.get("eval_env")}
    except (OSError, ValueError, KeyError, TypeError):  # the command that is typed will say so
        return ""
    if played:
        envs = {"env": envs["eval-env"] or envs["env"]}
    return "".join(f" --{flag} {shlex.quote(env)}" for flag, env in envs.items() if ":" in str(env or ""))


def quote_path(folder: Path) -> str:
    """Quote a folder for a shell, in a command that is printed for a user to type."""
    name = relative_path(folder)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)  # else it would be read as a flag


def relative_path(folder: Path) -> str:
    """A folder's path from the current one, where it lies within."""
    with contextlib.suppress(OSError, ValueError):  # the current one may be gone
        return str(folder.relative_to(Path.cwd()))
    return str(folder)
