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

from jaxdqn.config import RENAMED_NETWORK, Config
from jaxdqn.distributed.options import DistributedOptions
from jaxdqn.presets import PRESETS, RENAMED

T = TypeVar("T")
PRESET_HELP = (
    f"Train an agent. A PRESET may come before the flags: {', '.join(PRESETS)}. Without one, --env X takes neutral "
    "defaults; without --env either, the preset is cartpole."
)


@dataclass(frozen=True)
class Train(DistributedOptions, Config):
    """All flags of `jaxdqn train`."""

    def split(self) -> tuple[Config, DistributedOptions]:
        """Return the config of the run, and the options of this process."""
        both = dataclasses.asdict(self)
        names = {field.name for field in dataclasses.fields(DistributedOptions)}
        config = Config(**{name: value for name, value in both.items() if name not in names})
        return config, DistributedOptions(**{name: both[name] for name in names})


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
class Evaluate:
    """Play whole greedy episodes on the real environment and report raw returns."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    episodes: int = 100
    """Episodes to play."""
    checkpoint: Literal["best", "last"] = "best"
    """Which of the run's agents."""
    env: str | None = None
    """Gymnasium id to play on; None takes the run's, which must be named here if it imports a module (module:Id)."""
    seed: int = 0
    """Seed from which the episodes' seeds are spawned; training and selection never use those."""
    max_episode_steps: int | None = None
    """Steps after which an episode is cut, and counts as truncated; None takes the run's."""
    json: bool = False
    """Print one line of JSON as the last line."""


@dataclass(frozen=True)
class Play:
    """Draw one greedy episode as a GIF, with the action values beside it."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    output: Path = Path("agent.gif")
    """The GIF to write."""
    checkpoint: Literal["best", "last"] = "best"
    """Which of the run's agents."""
    env: str | None = None
    """Gymnasium id to play on; None takes the run's, which must be named here if it imports a module (module:Id)."""
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


def parse(kind: type[T], command: str, args: Sequence[str], default: T | None = None) -> T:
    """Parse flags into a dataclass.

    Raises:
        ValueError: If a flag is unknown, with the nearest known one in the message, or has a wrong value.
    """
    given: dict[str, Any] = {} if default is None else {"default": default, "description": PRESET_HELP}
    parsed, unknown = _parse_known(kind, args, prog=f"jaxdqn {command}", **given)
    if unknown:
        names = [field.name.replace("_", "-") for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        known = [prefix + name for prefix in ("--", "--no-") for name in names]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"see jaxdqn {command} --help"
        if unknown[0] in {*PRESETS, *RENAMED}:
            hint = f"a preset comes first, as in jaxdqn train {unknown[0]}"
        raise ValueError(f"unknown argument {unknown[0]!r}: {hint}")
    return parsed


def parse_config(args: Sequence[str], preset: Config | None = None) -> Config:
    """Return a preset, changed by flags that name fields of the config.

    Args:
        args: The flags. If they name another environment or change `pixels`, they change `preset.for_env(...)`. If the
            preset's replay holds its whole run, so does that of a run with another `--total-frames`.
        preset: What the flags change; None takes `Config()` if they name an environment, else the preset `cartpole`.

    Raises:
        ValueError: If the flags are wrong.
    """
    return parse(Config, "train", args, _preset_for(args, preset))


def parse_train(args: Sequence[str], preset: Config | None = None) -> tuple[Config, DistributedOptions]:
    """Parse the flags of `jaxdqn train`: those of the config (see `parse_config`) and of `DistributedOptions`."""
    config, options = parse(Train, "train", args, Train(**_preset_for(args, preset).to_dict())).split()
    options.check()
    return config, options


def _preset_for(args: Sequence[str], preset: Config | None) -> Config:
    given, _ = _parse_known(_DefaultFlags, args, add_help=False)
    if preset is None:
        preset = PRESETS["cartpole"] if given.env is None else Config(env=given.env)
    preset = preset.for_env(given.env or preset.env, pixels=given.pixels)
    holds_run = preset.capacity is not None and preset.capacity >= preset.total_frames
    if given.total_frames is not None and holds_run:
        preset = dataclasses.replace(preset, capacity=None)
    return preset


@dataclass(frozen=True)
class _DefaultFlags:
    """The flags on which the defaults of the other flags depend."""

    env: str | None = None
    pixels: bool | None = None
    total_frames: int | None = None


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


def _parse_known(kind: type[T], args: Sequence[str], **options: Any) -> tuple[T, list[str]]:
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
