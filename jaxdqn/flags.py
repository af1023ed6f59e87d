"""The command line's flags: tyro reads them from dataclasses, and its pages of errors become one line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from jaxdqn.config import Config
from jaxdqn.launch import Launch
from jaxdqn.presets import PRESETS

T = TypeVar("T")
PRESET_HELP = f"Train an agent. A PRESET may come before the flags: {', '.join(PRESETS)} (default: cartpole)."


@dataclass(frozen=True)
class Train(Launch, Config):
    """All that `jaxdqn train` takes."""

    def split(self) -> tuple[Config, Launch]:
        """What is the run's, and what is this process's."""
        both = dataclasses.asdict(self)
        names = {field.name for field in dataclasses.fields(Launch)}
        config = Config(**{name: value for name, value in both.items() if name not in names})
        return config, Launch(**{name: both[name] for name in names})


@dataclass(frozen=True)
class Resume(Launch):
    """Go on with a run that was stopped, from its newest whole state."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")] = dataclasses.field(kw_only=True)
    """Folder of a run."""
    total_frames: int | None = None
    """A larger budget; the schedules of epsilon and of the learning rate then end there."""
    num_devices: int | None = None
    """Devices of each process, where that is to be another number than before."""


@dataclass(frozen=True)
class Evaluate:
    """Play whole greedy episodes on the real environment and report raw returns."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    episodes: int = 100
    """Episodes to play."""
    checkpoint: Literal["best", "last"] = "best"
    """Which of the run's agents."""
    seed: int = 0
    """The episodes' seeds are spawned from it; training and selection never use them."""
    json: bool = False
    """Print one line of JSON, last."""


@dataclass(frozen=True)
class Play:
    """Draw one greedy episode as a GIF, with the action values beside it."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    output: Path = Path("agent.gif")
    """The GIF to write."""
    checkpoint: Literal["best", "last"] = "best"
    """Which of the run's agents."""
    seed: int = 0
    """Seed of the episode."""


@dataclass(frozen=True)
class Plot:
    """Draw return against frames, a colour a run."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")]
    """Folders of runs."""
    output: Path = Path("curve.png")
    """The picture to write; its suffix chooses the format."""


def parse(kind: type[T], command: str, args: Sequence[str], default: T | None = None) -> T:
    """Parse flags; a flag that is not known is refused, with the nearest one that is.

    Raises:
        ValueError: If the flags are wrong.
    """
    given: dict[str, Any] = {} if default is None else {"default": default, "description": PRESET_HELP}
    parsed, unknown = _parse_known(kind, args, prog=f"jaxdqn {command}", **given)
    if unknown:
        names = [field.name.replace("_", "-") for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        known = [prefix + name for prefix in ("--", "--no-") for name in names]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"see jaxdqn {command} --help"
        if unknown[0] in PRESETS:
            hint = f"a preset comes first, as in jaxdqn train {unknown[0]}"
        raise ValueError(f"unknown argument {unknown[0]!r}: {hint}")
    return parsed


def parse_config(args: Sequence[str], preset: Config) -> Config:
    """A preset changed by flags that name a config's fields.

    Args:
        args: The flags. Where they name another environment, or vectors, they change `preset.for_env(...)`.
        preset: What the flags change.

    Raises:
        ValueError: If the flags are wrong.
    """
    return parse(Config, "train", args, _preset_for(args, preset))


def parse_train(args: Sequence[str], preset: Config) -> tuple[Config, Launch]:
    """As `parse_config`, with the flags of `Launch` among them."""
    config, launch = parse(Train, "train", args, Train(**_preset_for(args, preset).to_dict())).split()
    launch.check()
    return config, launch


def _preset_for(args: Sequence[str], preset: Config) -> Config:
    about_env, _ = _parse_known(_AboutEnv, args, add_help=False, default=_AboutEnv(preset.env, preset.pixels))
    return preset.for_env(about_env.env, pixels=about_env.pixels)


@dataclass(frozen=True)
class _AboutEnv:
    """The flags on which the others' defaults depend."""

    env: str
    pixels: bool


def _parse_known(kind: type[T], args: Sequence[str], **options: Any) -> tuple[T, list[str]]:
    """What tyro makes of the flags, and those it does not know; its boxed page of an error becomes one line."""
    page = io.StringIO()
    try:
        with contextlib.redirect_stderr(page):
            parsed, unknown = tyro.cli(kind, args=list(args), return_unknown_args=True, **options)
    except SystemExit as stop:
        if not stop.code:
            raise  # --help
        raise ValueError(_fold(page.getvalue()).removeprefix(f"{kind.__name__}: ")) from None
    return parsed, unknown


def _fold(page: str) -> str:
    """The first paragraph of tyro's box as one line, in plain words."""
    rows = [row.strip("│ ") for row in page.splitlines()][1:]  # the first is the title
    rules = [index for index, row in enumerate(rows) if row and not row.strip("─-╰╯")]
    first = 1 if rules[:1] == [0] else 0  # where the box is drawn in ASCII, a rule follows the title
    until = next((index for index in rules if index > first), len(rows))
    line = " ".join(row for row in rows[first:until] if row)
    line = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number", line)
    line = re.sub(r"could not convert string to float: (.*)", r"\1 is not a number", line)
    return line.removeprefix("Error parsing ").replace("Expected 1 values.", "Give it one.") or "bad arguments"
