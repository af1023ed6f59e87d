"""The command line's flags: tyro reads them from dataclasses, and its errors are shortened to one line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import tyro

from jaxdqn.config import RENAMED_NETWORK
from jaxdqn.distributed.options import DistributedOptions
from jaxdqn.presets import PRESETS, RENAMED
from jaxdqn.pretrained import PRETRAINED

T = TypeVar("T")


@dataclass(frozen=True)
class Resume(DistributedOptions):
    """Resume a run that was stopped, from its newest complete state."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")] = dataclasses.field(kw_only=True)
    """Folder of a run."""
    total_frames: int | None = None
    """A larger number of frames; the schedules of epsilon and of the learning rate then end there."""
    num_devices: int | None = None
    """Devices of each process; None keeps the number."""
    env: str | None = None
    """The run's environment, which must be named if its id imports a module (module:Id)."""
    eval_env: str | None = None
    """The run's evaluation environment, which must be named if its id imports a module."""


@dataclass(frozen=True)
class AgentSource:
    """Which agent: that of a run, or one that the package contains."""

    run: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="RUN")] = None
    """Folder of a run, or --pretrained in its place."""
    pretrained: Literal[PRETRAINED] | None = None
    """An agent that the package contains."""
    checkpoint: Literal["best", "last"] = "best"
    """Which of the run's agents."""
    env: str | None = None
    """Gymnasium id to play on; None takes the agent's, which must be named here if it imports a module (module:Id)."""

    def check(self) -> None:
        """Raise `ValueError` if this names no agent, or two."""
        names = "|".join(PRETRAINED)
        if self.run is None and self.pretrained is None:
            raise ValueError(f"RUN is missing: name the folder of a run, or use --pretrained {names}")
        if self.run is not None and self.pretrained is not None:
            raise ValueError(f"RUN {str(self.run)!r} and --pretrained {self.pretrained} are two agents: name one")
        if self.pretrained is not None and self.checkpoint != "best":
            raise ValueError(f"--checkpoint {self.checkpoint} needs a run: a pretrained agent is one agent")

    @property
    def title(self) -> str:
        """What the agent is called in messages."""
        if self.pretrained is not None:
            return f"the pretrained agent {self.pretrained}"
        return f"the {self.checkpoint} agent of {self.run}"


@dataclass(frozen=True)
class Evaluate(AgentSource):
    """Play whole greedy episodes on the real environment and report raw returns."""

    episodes: int = 100
    """Episodes to play."""
    seed: int = 0
    """Seed from which the episodes' seeds are spawned; training and selection never use those."""
    max_episode_steps: int | None = None
    """Steps after which an episode is cut, and counts as truncated; None takes the agent's."""
    json: bool = False
    """Print one line of JSON as the last line."""


@dataclass(frozen=True)
class Play(AgentSource):
    """Draw one greedy episode as a GIF, with the action values beside it."""

    output: Path = Path("agent.gif")
    """The GIF to write."""
    seed: int = 0
    """Seed of the episode."""
    max_episode_steps: int = 1000
    """Steps after which the episode is cut."""


@dataclass(frozen=True)
class Plot:
    """Draw return against frames, one colour for each run."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")]
    """Folders of runs."""
    output: Path = Path("curve.png")
    """The image file to write; its suffix chooses the format."""


def parse(
    kind: type[T], command: str, args: Sequence[str], default: T | None = None, description: str | None = None
) -> T:
    """Parse flags into a dataclass.

    Args:
        kind: The dataclass.
        command: The command, for messages.
        args: The flags.
        default: Values of flags that are not given; None: those of the dataclass.
        description: First paragraph of `--help` if there is a default.

    Raises:
        ValueError: If a flag is unknown, with the nearest known one in the message, or has a wrong value.
    """
    given: dict[str, Any] = {} if default is None else {"default": default, "description": description}
    parsed, unknown = parse_known(kind, args, prog=f"jaxdqn {command}", **given)
    if unknown:
        names = [field.name.replace("_", "-") for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        known = [prefix + name for prefix in ("--", "--no-") for name in names]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"see jaxdqn {command} --help"
        if unknown[0] in {*PRESETS, *RENAMED}:
            hint = f"a preset comes first, as in jaxdqn train {unknown[0]}"
        raise ValueError(f"unknown argument {unknown[0]!r}: {hint}")
    return parsed


def _expand_optional_bools(kind: Any, args: Sequence[str]) -> list[str]:
    """Replace `--x` by `--x True` and `--no-x` by `--x False`, for fields of type `bool | None`."""
    optional_bools = {name for name, hint in get_type_hints(kind).items() if hint == (bool | None)}
    args = _replace_old_names(args)
    words: list[str] = []
    for index, word in enumerate(args):
        name = word.removeprefix("--").replace("-", "_")
        following = args[index + 1] if index + 1 < len(args) else "--"
        if word.startswith("--no-") and name.removeprefix("no_") in optional_bools:
            words += [f"--{word.removeprefix('--no-')}", "False"]
        elif word.startswith("--") and name in optional_bools and following not in ("True", "False", "None"):
            words += [word, "True"]
        else:
            words.append(word)
    return words


def _replace_old_names(args: Sequence[str]) -> list[str]:
    """Replace the value of `--network` that an earlier version named differently."""
    old, new = RENAMED_NETWORK
    words = [f"--network={new}" if word == f"--network={old}" else word for word in args]
    pairs = zip(["", *words], words, strict=False)
    return [new if (before, word) == ("--network", old) else word for before, word in pairs]


def parse_known(kind: type[T], args: Sequence[str], **options: Any) -> tuple[T, list[str]]:
    """Return what tyro parses, and the flags that it does not know; raise `ValueError` with its error in one line."""
    page = io.StringIO()
    try:
        with contextlib.redirect_stderr(page):
            words = _expand_optional_bools(kind, args)
            parsed, unknown = tyro.cli(kind, args=words, return_unknown_args=True, **options)
    except SystemExit as stop:
        if not stop.code:
            raise  # --help
        raise ValueError(_error_line(page.getvalue()).removeprefix(f"{kind.__name__}: ")) from None
    return parsed, unknown


def _error_line(page: str) -> str:
    """Return the first paragraph of tyro's error box as one line, with plain words for Python's parsing errors."""
    rows = [row.strip("│ ") for row in page.splitlines()][1:]  # the first is the title
    rules = [index for index, row in enumerate(rows) if row and not row.strip("─-╰╯")]
    first = 1 if rules[:1] == [0] else 0  # if the box is drawn in ASCII, a rule follows the title
    until = next((index for index in rules if index > first), len(rows))
    line = " ".join(row for row in rows[first:until] if row)
    line = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number", line)
    line = re.sub(r"could not convert string to float: (.*)", r"\1 is not a number", line)
    # For an optional field tyro lists the error of each type of the union: the last one is the useful one.
    line = re.sub(r"no type matching .* could be instantiated from .*- <class '\w+'>: (.*)", r"\1", line)
    return line.removeprefix("Error parsing ").replace("Expected 1 values.", "Give it a value.") or "bad arguments"
