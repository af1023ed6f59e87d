"""Show what the neutral defaults learn: `jaxdqn train --env X --total-frames N --seed S` on several environments.

    python3 experiments/other_environments.py --output runs/other-environments

Arguments: `--envs`, `--seeds` and `--total-frames` (in place of those of each task), `--episodes` (100, to score an
agent), `--output`. Each environment and seed is a separate run under the output folder; a run that is already trained
to its end is not trained again. Every best agent is scored on greedy episodes with new seeds. It writes
`other_environments.csv` (one row for each run) and `curves.png`, and prints the table of the README. LunarLander needs
the extra `box2d`. No seed here was used to choose a setting.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from score_preset import is_finished, train
from shared.command_line import positive
from shared.seeds import write_table

import jaxdqn
from jaxdqn.cli.train_flags import parse_config
from jaxdqn.config import Config
from jaxdqn.reporting.plots import COLOURS, read_table
from jaxdqn.storage.atomic import atomic_write


class Task(NamedTuple):
    """An environment, the length of its runs, and the return that they should reach.

    Attributes:
        env: Gymnasium id.
        frames: Frames of a run.
        goal: Mean return that counts as learned.
        seeds: Seeds of the runs; none was used to choose a setting.
    """

    env: str
    frames: int
    goal: float
    seeds: tuple[int, ...] = (10, 11, 12)


TASKS = (
    Task("jaxdqn/Ball-v0", 40_000, 10.0),
    Task("CartPole-v1", 100_000, 475.0),
    Task("Acrobot-v1", 100_000, -100.0),
    Task("LunarLander-v3", 600_000, 200.0),
    Task("MountainCar-v0", 100_000, -110.0),
)


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    known = [task.env for task in TASKS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--envs", nargs="+", default=known, choices=known, metavar="ENV", help=", ".join(known))
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds of every task; default: each task's")
    parser.add_argument("--episodes", type=positive, default=100, help="greedy episodes on new seeds to score an agent")
    parser.add_argument("--total-frames", type=positive, help="frames of every run; default: each task's")
    parser.add_argument("--output", type=Path, default=Path("runs/other-environments"))
    options = parser.parse_args(args)
    tasks = [task for task in TASKS if task.env in options.envs]
    if options.total_frames is not None:
        tasks = [task._replace(frames=options.total_frames) for task in tasks]
    if options.seeds is not None:
        tasks = [task._replace(seeds=tuple(options.seeds)) for task in tasks]
    rows: list[dict[str, Any]] = []
    try:
        runs = [(task, make_config(task, seed, options.output)) for task in tasks for seed in task.seeds]
        finished = [is_finished(Path(str(config.output)), config) for _, config in runs]
        for (task, config), done in zip(runs, finished, strict=True):
            if not done:
                train(config)
            rows.append(score(config, task, options.episodes))
            print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
            write_table(options.output / "other_environments.csv", rows)
    except ValueError as error:
        parser.error(str(error))
    print(table(tasks, rows))
    draw(tasks, options.output)


def make_config(task: Task, seed: int, output: Path) -> Config:
    """Return the config of `jaxdqn train --env X --total-frames N --seed S`."""
    flags = ["--env", task.env, "--total-frames", str(task.frames), "--seed", str(seed)]
    return dataclasses.replace(parse_config(flags), output=str(run_folder(task, seed, output)))


def run_folder(task: Task, seed: int, output: Path) -> Path:
    """Return the folder of a run."""
    return output / f"{task.env.split('/')[-1]}-{seed}"


def score(config: Config, task: Task, episodes: int) -> dict[str, Any]:
    """Score a run's best agent on seeds that training and selection did not use."""
    run = Path(str(config.output))
    found = jaxdqn.load(run).evaluate(episodes, seed=0)
    seconds = read_table(run / "evaluations.csv")[-1]["elapsed_seconds"]
    return {
        "env": task.env,
        "frames": task.frames,
        "seed": config.seed,
        "seconds": round(seconds),
        "episodes": episodes,
        "mean": round(found.mean, 1),
        "standard_error": round(found.standard_error, 1),
        "min": found.min,
        "cut": found.cut,
    }


def table(tasks: Sequence[Task], rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table with one row for each environment."""
    lines = ["| `--env` | `--total-frames` | goal | seeds | best agents | seconds a run |", "|---" * 6 + "|"]
    for task in tasks:
        own = {row["seed"]: row for row in rows if row["env"] == task.env}
        found = ", ".join(f"{own[seed]['mean']:.1f} ± {own[seed]['standard_error']:.1f}" for seed in task.seeds)
        seconds = round(float(np.median([row["seconds"] for row in own.values()])))
        seeds = ", ".join(map(str, task.seeds))
        lines.append(f"| {task.env} | {task.frames:,} | {task.goal:g} | {seeds} | {found} | {seconds:,} |")
    return "\n".join(lines)


def draw(tasks: Sequence[Task], output: Path) -> None:
    """Draw a panel for each environment, with the screening mean of each seed and the goal."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 2.6 * len(tasks), 2.9), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for panel, task in zip(panels, tasks, strict=True):
        for index, seed in enumerate(task.seeds):
            rows = read_table(run_folder(task, seed, output) / "evaluations.csv")
            colour = [channel / 255 for channel in COLOURS[index % len(COLOURS)]]
            panel.plot([r["frames"] for r in rows], [r["screening_mean"] for r in rows], color=colour, lw=1.2)
        panel.axhline(task.goal, color="grey", lw=0.8, ls="--")
        panel.set_title(task.env.split("/")[-1], fontsize=9)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
        panel.tick_params(labelsize=7)
    figure.supxlabel("frames", fontsize=9)
    figure.supylabel("greedy return", fontsize=9)
    with atomic_write(output / "curves.png") as partial:
        figure.savefig(partial, format="png")


if __name__ == "__main__":
    main()
