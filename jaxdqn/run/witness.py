"""Who speaks for a process that cannot: JAX ends one whose peer is lost from C++, with no word of the run.

A process of its own waits for that. It imports nothing of JAX, and lives as long as what it watches.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import TracebackType


def how_to_go_on(folder: Path) -> str:
    """The command that goes on with a run, and from where."""
    kept = sorted(path.name for path in (folder / "states").glob("*[0-9]"))
    where = f"from frame {int(kept[-1][:10]):,}" if kept else "from its beginning"
    return f"`jaxdqn resume {quoted(folder)}{named_envs(folder)}` goes on {where}"


def named_envs(folder: Path, *, played: bool = False) -> str:
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


def quoted(folder: Path) -> str:
    """Quote a folder for a shell, in a command that is printed for a user to type."""
    name = short(folder)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)  # else it would be read as a flag


def short(folder: Path) -> str:
    """A folder's path from the current one, where it lies within."""
    with contextlib.suppress(OSError, ValueError):  # the current one may be gone
        return str(folder.relative_to(Path.cwd()))
    return str(folder)


class Witness:
    """Tells what became of a run whose process ends without having said so itself."""

    def __init__(self, name: str) -> None:
        """Start it.

        Args:
            name: What to call this process.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, name],
            stdin=subprocess.PIPE,
            start_new_session=True,  # so that Ctrl-C leaves it alone
        )

    def watch(self, folder: Path) -> None:
        """Say which run it is."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it was killed, and the run goes on without it
            self._process.stdin.write(f"{folder.absolute()}\n".encode())
            self._process.stdin.flush()

    def rest(self) -> None:
        """End it: everything has been said."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Witness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.rest()


def main() -> None:
    """Wait until the process that has started this one is gone."""
    folder = ""
    for line in sys.stdin:
        folder = line.strip()
    where = f"; {how_to_go_on(Path(folder))}" if folder else ""
    name = sys.argv[1]
    print(
        f"jaxdqn: training stopped: {name} was ended from outside, or by JAX because a peer was lost "
        f"(JAX then says above which){where}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
