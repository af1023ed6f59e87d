"""The command line: parse, call, print. Bad input ends in one line and exit code 2, Ctrl-C in 130."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import tyro

import jaxdqn
from jaxdqn.config import PRESETS, Config

T = TypeVar("T")
USAGE = f"""usage: jaxdqn COMMAND ...

  train [PRESET] [--flags]         train an agent; presets: {", ".join(PRESETS)} (default: cartpole)
  evaluate RUN [--episodes N]      play whole greedy episodes with a run's best agent
  play RUN [--output agent.gif]    draw an episode, with the action values beside it
  plot RUN... [--output FILE]      draw runs' learning curves

jaxdqn COMMAND --help lists the flags of a command."""

PRESET_HELP = f"Train an agent. A PRESET may come before the flags: {', '.join(PRESETS)} (default: cartpole)."


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
    """A preset changed by the flags of `jaxdqn train`.

    Args:
        args: The flags. Where they name another environment, or vectors, they change `preset.for_env(...)`.
        preset: What the flags change.

    Raises:
        ValueError: If the flags are wrong.
    """
    about_env, _ = _parse_known(_AboutEnv, args, add_help=False, default=_AboutEnv(preset.env, preset.pixels))
    return parse(Config, "train", args, preset.for_env(about_env.env, pixels=about_env.pixels))


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


def train(args: Sequence[str]) -> None:
    """`jaxdqn train [PRESET] [--flags]`."""
    preset = "cartpole"
    if args and not args[0].startswith("-"):
        preset, args = args[0], args[1:]
        if preset not in PRESETS:
            near = difflib.get_close_matches(preset, PRESETS, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(PRESETS)}"
            raise ValueError(f"unknown preset {preset!r}: {hint}")
    config = parse_config(args, PRESETS[preset])
    # JAX and the environments are imported only now, when there is something to run.
    from jaxdqn.run.display import Display
    from jaxdqn.run.resources import keep_programs
    from jaxdqn.run.training import train as run_training

    keep_programs()
    folder = None
    with Display(config) as display, contextlib.closing(run_training(config, name=preset)) as steps:
        try:
            for step in steps:
                folder = step.folder
                display.show(step)
        except (ValueError, OSError) as error:
            if folder is None:
                raise
            # Not the fault of what was typed: the cause is shown, and the exit code is 1.
            raise RuntimeError(f"training stopped; the agents of the last evaluation are in {folder}") from error
    assert folder is not None  # a run has at least one batch
    print(f"kept in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    print(f"next: jaxdqn evaluate {folder} --episodes 100")


def evaluate(args: Sequence[str]) -> None:
    """`jaxdqn evaluate RUN --episodes N [--json]`."""
    options = parse(Evaluate, "evaluate", args)
    if options.episodes < 1:
        raise ValueError(f"--episodes {options.episodes} must be at least 1")
    from jaxdqn.run.policy import load

    if sys.stderr.isatty():
        print(f"playing {options.episodes} episodes ...", file=sys.stderr)
    result = load(options.run, options.checkpoint).evaluate(options.episodes, options.seed)
    if options.json:
        fields = {"run": str(options.run), "checkpoint": options.checkpoint, "seed": options.seed}
        print(json.dumps({**fields, **result._asdict()}))
        return
    print(f"{result.episodes} greedy episodes of the {options.checkpoint} agent of {options.run}")
    print(f"mean {result.mean:.1f} ± {result.standard_error:.1f} (standard error), median {result.median:g}")
    print(f"min {result.min:g}, max {result.max:g}")


def play(args: Sequence[str]) -> None:
    """`jaxdqn play RUN --output agent.gif`."""
    options = parse(Play, "play", args)
    if options.output.suffix.lower() != ".gif":
        raise ValueError(f"--output {str(options.output)!r} must end in .gif")
    from jaxdqn.run.pictures import record_gif
    from jaxdqn.run.policy import load

    total = record_gif(load(options.run, options.checkpoint), options.output, seed=options.seed)
    print(f"{options.output}: an episode of return {total:g}")


def plot(args: Sequence[str]) -> None:
    """`jaxdqn plot RUN... --output curve.png`."""
    options = parse(Plot, "plot", args)
    if not options.runs:
        raise ValueError("name at least one run's folder")
    from jaxdqn.run.pictures import draw_curve
    from jaxdqn.run.policy import read_config

    configs = [read_config(run) for run in options.runs]
    draw_curve(options.runs, options.output, label=configs[0].env)
    print(f"{options.output}: {len(options.runs)} run{'s' if len(options.runs) > 1 else ''}")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": train,
    "evaluate": evaluate,
    "play": play,
    "plot": plot,
}


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Entry point: exits with 0, with 2 on bad input, with 130 on Ctrl-C; a fault in mid-run is raised."""
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        print(f"jaxdqn {jaxdqn.__version__}")
        sys.exit(0)
    try:
        if words[0] not in COMMANDS:
            near = difflib.get_close_matches(words[0], COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
            raise ValueError(f"unknown command {words[0]!r}: {hint}")
        COMMANDS[words[0]](words[1:])
    except (ValueError, OSError) as error:
        print(f"jaxdqn: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("jaxdqn: interrupted; what was written is whole", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
