"""The commands: each parses its flags, calls the library and prints the result."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jaxdqn
from jaxdqn.cli.flags import AgentSource, Evaluate, Play, Plot, Resume, parse
from jaxdqn.cli.runner import Stopped, in_one_line, show_run
from jaxdqn.cli.train_flags import parse_train
from jaxdqn.config import Config
from jaxdqn.distributed.options import DistributedOptions
from jaxdqn.presets import PRESETS, RENAMED
from jaxdqn.pretrained import PRETRAINED
from jaxdqn.signals import defer_ctrl_c

if TYPE_CHECKING:
    from jaxdqn.evaluation.trained_agent import TrainedAgent
    from jaxdqn.training.context import RunControl
    from jaxdqn.training.obs_stats import RolloutAhead

USAGE = f"""usage: jaxdqn COMMAND ...

  train [PRESET] [--flags]         train an agent; presets: {", ".join(PRESETS)} (default: cartpole,
                                   and with --env X neutral defaults for X)
  resume RUN [--total-frames N]    resume a run that was stopped
  evaluate RUN [--episodes N]      play whole greedy episodes with a run's best agent
  play RUN [--output agent.gif]    draw an episode, with the action values beside it;
                                   both take --pretrained {"|".join(PRETRAINED)} in place of RUN
  plot RUN... [--output FILE]      draw the learning curves of runs
  doctor                           check that this machine has what a run needs

jaxdqn COMMAND --help lists the flags of a command. train and resume take --distributed, for several hosts."""


def train(args: Sequence[str]) -> None:
    """`jaxdqn train [PRESET] [--flags]`."""
    preset = None
    if args and not args[0].startswith("-"):
        preset, args = args[0], args[1:]
        preset = RENAMED.get(preset, preset)
        if preset not in PRESETS:
            near = difflib.get_close_matches(preset, PRESETS, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(PRESETS)}"
            raise ValueError(f"unknown preset {preset!r}: {hint}")
    config, options = parse_train(args, None if preset is None else PRESETS[preset])
    name = preset or ("cartpole" if not _names_env(args) else re.sub(r"[^\w.-]", "-", config.env.split("/")[-1]))
    if options.distributed:
        _train(config, name, None, options)
        return
    # Import the environments only now: `--help` and bad input do not need them.
    with defer_ctrl_c():
        from jaxdqn.training.obs_stats import RolloutAhead

    with contextlib.closing(RolloutAhead(config)) as rollout:
        _train(config, name, rollout, options)


def _names_env(args: Sequence[str]) -> bool:
    return any(word == "--env" or word.startswith("--env=") for word in args)


def _train(config: Config, name: str, rollout: RolloutAhead | None, options: DistributedOptions) -> None:
    # Import JAX only here: the rollout draws its frames at the same time.
    with defer_ctrl_c():
        from jaxdqn.training.context import NO_OVERRIDES
        from jaxdqn.training.run_steps import train_steps
        from jaxdqn.training.training_run import TrainingRun

    def start(control: RunControl) -> TrainingRun:
        return TrainingRun(train_steps(config, NO_OVERRIDES, control, rollout=rollout, name=name), control)

    show_run(config, start, options)


def resume(args: Sequence[str]) -> None:
    """`jaxdqn resume RUN [--total-frames N]`."""
    options = parse(Resume, "resume", args)
    options.check()
    with defer_ctrl_c():
        from jaxdqn.evaluation.loading import read_config
        from jaxdqn.training.context import NO_OVERRIDES, ResumeOptions
        from jaxdqn.training.run_steps import resume_steps
        from jaxdqn.training.training_run import TrainingRun

    given = ResumeOptions(**{name: getattr(options, name) for name in ResumeOptions._fields})
    config = read_config(options.run)
    if options.total_frames is not None:
        config = dataclasses.replace(config, total_frames=options.total_frames)

    def start(control: RunControl) -> TrainingRun:
        return TrainingRun(resume_steps(options.run, given, NO_OVERRIDES, control), control)

    show_run(config, start, options, options.run)


def evaluate(args: Sequence[str]) -> None:
    """`jaxdqn evaluate RUN --episodes N [--json]`."""
    options = parse(Evaluate, "evaluate", args)
    options.check()
    if options.episodes < 1:
        raise ValueError(f"--episodes {options.episodes} must be at least 1")
    with defer_ctrl_c():
        from jaxdqn.cli.console import count_of, mean_with_error
        from jaxdqn.distributed.devices import find_devices

    find_devices()
    if sys.stderr.isatty():
        print(f"playing {options.episodes} episodes ...", file=sys.stderr)
    agent = _load_agent(options)
    max_steps = agent.config.max_episode_steps if options.max_episode_steps is None else options.max_episode_steps
    with _faults_in_one_line("evaluation stopped"):
        kwargs: dict[str, Any] = {"max_episode_steps": max_steps, "say": lambda line: print(line, file=sys.stderr)}
        result = agent.evaluate(options.episodes, options.seed, **kwargs)
    if options.json:
        run, checkpoint = (None, None) if options.run is None else (str(options.run), options.checkpoint)
        fields = {"run": run, "checkpoint": checkpoint, "pretrained": options.pretrained, "seed": options.seed}
        figures = {name: value for name, value in result._asdict().items() if not name.startswith("screening_")}
        print(json.dumps({**fields, "max_episode_steps": max_steps, **figures}))
        return
    print(f"{count_of(result.episodes, 'greedy episode')} of {options.title}")
    error = " (standard error)" if result.episodes > 1 else ""
    print(f"mean {mean_with_error(result)}{error}, median {result.median:g}")
    print(f"min {result.min:g}, max {result.max:g}")
    if result.cut:
        print(f"{result.cut} of them were cut after {max_steps:,} steps and count with their return up to then")


def play(args: Sequence[str]) -> None:
    """`jaxdqn play RUN --output agent.gif`."""
    options = parse(Play, "play", args)
    options.check()
    if options.output.suffix.lower() != ".gif":
        raise ValueError(f"--output {str(options.output)!r} must end in .gif")
    with defer_ctrl_c():
        from jaxdqn.distributed.devices import find_devices
        from jaxdqn.envs.vector.episodes import CutEpisode
        from jaxdqn.reporting.gif import draw_episode

    find_devices()
    if options.max_episode_steps < 1:
        raise ValueError(f"--max-episode-steps {options.max_episode_steps} must be at least 1")
    agent = _load_agent(options)
    with _faults_in_one_line("playing stopped"):
        episode = draw_episode(agent, options.output, seed=options.seed, longest=options.max_episode_steps)
    cut = f", cut after {episode.length:,} steps" if isinstance(episode, CutEpisode) else ""
    print(f"{options.output}: an episode of return {episode.raw_return:g}{cut}")


def _load_agent(options: AgentSource) -> TrainedAgent:
    if options.pretrained is not None:
        with defer_ctrl_c():
            from jaxdqn.evaluation.pretrained import load_pretrained

        return load_pretrained(options.pretrained, env=options.env)
    with defer_ctrl_c():
        from jaxdqn.evaluation.loading import load

    return load(str(options.run), options.checkpoint, env=options.env)


@contextlib.contextmanager
def _faults_in_one_line(what: str) -> Iterator[None]:
    """Turn an environment's exception, or a value that is not finite, into `Stopped`: one line and exit code 1."""
    from jaxdqn.envs.vector.stepper import fault_of

    try:
        yield
    except Exception as error:
        if fault_of(error) is None and not isinstance(error, ArithmeticError):
            raise
        raise Stopped(f"{what}: {fault_of(error) or in_one_line(error)}") from error


def plot(args: Sequence[str]) -> None:
    """`jaxdqn plot RUN... --output curve.png`."""
    options = parse(Plot, "plot", args)
    if not options.runs:
        raise ValueError("name at least one run's folder")
    with defer_ctrl_c():
        from jaxdqn.reporting.plots import draw_curve, env_of_run

    runs = list({run.resolve(): run for run in reversed(options.runs)}.values())[::-1]  # without duplicates
    draw_curve(runs, options.output, envs=[env_of_run(run) for run in runs])
    print(f"{options.output}: {len(runs)} run{'s' if len(runs) > 1 else ''}")


def doctor(args: Sequence[str]) -> None:
    """`jaxdqn doctor`."""
    if args and args[0] in ("-h", "--help"):
        print("usage: jaxdqn doctor\n\nCheck that this machine has what a run needs, and say how to fix what is wrong.")
        return
    if args:
        raise ValueError(f"unknown argument {args[0]!r}: jaxdqn doctor takes no arguments")
    with defer_ctrl_c():
        from jaxdqn.cli.doctor import examine

    wrong = 0
    for name, found, fix in examine(PRESETS["cartpole"]):
        wrong += fix is not None
        print(f"{'WRONG' if fix else 'ok':5}  {name:20} {found}{f' -> {fix}' if fix else ''}")
    if wrong:
        raise Stopped(f"{wrong} of these checks failed: fix what is marked WRONG")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": train,
    "resume": resume,
    "evaluate": evaluate,
    "play": play,
    "plot": plot,
    "doctor": doctor,
}


def run_command(words: Sequence[str]) -> None:
    """Run the command that the first word names, with the other words as its arguments.

    Raises:
        SystemExit: After `--help`, or if there are no words.
        ValueError: If there is no such command, or its flags are wrong.
    """
    for word in words:
        if not word.isascii() and word.encode(errors="ignore").decode() != word:
            raise ValueError(f"{word!r} is not valid UTF-8, and file names of a run must be: rename it")
    if not words or words[0] in ("help", "-h", "--help"):
        print(USAGE)
        raise SystemExit(0 if words else 2)
    if words[0] == "--version":
        print(f"jaxdqn {jaxdqn.__version__}")
        return
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
        raise ValueError(f"unknown command {words[0]!r}: {hint}")
    COMMANDS[words[0]](words[1:])
