"""Train a preset with seeds that chose no setting, and evaluate the agents again: the figures of the README.

    python3 experiments/score_preset.py [-- FLAGS]
    python3 experiments/score_preset.py --preset der --solved 18 --episodes 30 --seeds 100 101

Arguments: `--preset` (cartpole), `--seeds` (100 to 119 of cartpole), `--solved` (the mean at which a task counts as
solved: 475 of cartpole), `--episodes` (100, to score an agent), `--output` (runs/PRESET-seeds), `--name` of the tables
(that of the preset); FLAGS are flags of `jaxdqn train`. Each seed is a separate run under the output folder. A seed
that is already trained and scored with the same config is not repeated; an interrupted one is trained again from
scratch. It writes `NAME.csv` (one row for each seed), `NAME_evaluations.csv` (one row for each evaluation of a run),
`NAME_table.csv` (medians, means, worst seeds, and of five seeds or more interquartile means with 95 % bootstrap
intervals) and `curves.png`, and prints the first and the last of these tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from shared.command_line import config_of, positive, split_flags
from shared.curves import draw
from shared.seeds import interquartile_text, markdown, write_table
from shared.variants import SOLVED

import jaxdqn
from jaxdqn.checkpoints.agent_files import Checkpoints
from jaxdqn.config import Config
from jaxdqn.evaluation.loading import read_config
from jaxdqn.presets import PRESETS
from jaxdqn.reporting.plots import read_table
from jaxdqn.storage.atomic import read_json, write_json

SEEDS = list(range(100, 120))
"""Seeds that chose no setting of the preset `cartpole`: see `seeds.toml`."""

PLAYED = tuple(f"{which}_{what}" for which in ("best", "last") for what in ("frames", "mean", "standard_error", "min"))
"""What fresh episodes of the best and of the last agent say."""


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    words, flags = split_flags(args)
    parser = argparse.ArgumentParser(description="Train a preset with several seeds and evaluate the agents again.")
    parser.add_argument("--seeds", type=int, nargs="+", help="by default 100 to 119 of the preset cartpole")
    parser.add_argument("--preset", choices=PRESETS, default="cartpole")
    parser.add_argument("--episodes", type=positive, default=100, help="greedy episodes on new seeds to score an agent")
    parser.add_argument("--solved", type=float, help="mean at which a task counts as solved; 475 of cartpole")
    parser.add_argument("--output", type=Path, help="folder; by default runs/PRESET-seeds")
    parser.add_argument("--name", help="name of the tables; by default that of the preset")
    options = parser.parse_args(words)
    for field, default in (("seeds", SEEDS), ("solved", SOLVED)):
        if getattr(options, field) is None:
            if options.preset != "cartpole":
                parser.error(f"--{field} has no default for the preset {options.preset}: add it")
            setattr(options, field, default)
    name, folder = options.name or options.preset, options.output or Path(f"runs/{options.preset}-seeds")
    try:
        given = config_of(flags, PRESETS[options.preset])
        runs = {seed: folder / f"seed{seed}" for seed in options.seeds}
        configs = {seed: dataclasses.replace(given, seed=seed, output=str(run)) for seed, run in runs.items()}
        finished = {seed: is_finished(run, configs[seed]) for seed, run in runs.items()}
        rows = []
        for seed, run in runs.items():
            if not finished[seed]:
                train(configs[seed])
            rows.append(scored(run, seed, options.episodes, options.solved))
            print("  ".join(f"{column} {value}" for column, value in rows[-1].items()), flush=True)
            write_table(folder / f"{name}.csv", rows)
    except ValueError as error:
        parser.error(str(error))
    summary = [summary_of(rows, options.solved)]
    write_table(folder / f"{name}_table.csv", summary)
    print(markdown(rows), markdown(summary), sep="\n\n")
    evaluations = evaluations_of(runs)
    write_table(folder / f"{name}_evaluations.csv", evaluations)
    title = f"{given.env}, preset {options.preset}"
    draw([{"variant": title, **row} for row in evaluations], [title], folder / "curves.png")
    print(f"saved in {folder}: {name}*.csv, curves.png and a run for each seed")


def evaluations_of(runs: Mapping[int, Path]) -> list[dict[str, Any]]:
    """Return the screening mean of each seed's evaluations, which is not biased by the choice of the best agent."""
    return [
        {"seed": seed, "frames": int(row["frames"]), "mean": round(row["screening_mean"], 1)}
        for seed, run in runs.items()
        for row in read_table(run / "evaluations.csv")
    ]


def is_finished(run: Path, config: Config) -> bool:
    """Return whether a run of this config, in any folder, was trained to its end.

    Raises:
        ValueError: If the folder holds a run of another config.
    """
    if not run.exists():
        return False
    found = read_config(run)
    if config.capacity is None:  # the run's config has the capacity that was chosen for the machine
        found = dataclasses.replace(found, capacity=None)
    if found != dataclasses.replace(config, output=found.output):  # a folder may have been moved
        raise ValueError(f"{run} holds a run of another config: choose another --output")
    evaluations = run / "evaluations.csv"
    rows = read_table(evaluations) if evaluations.exists() else []
    return bool(rows) and rows[-1]["frames"] >= config.total_frames


def train(config: Config) -> None:
    """Train one seed to its end and print a line for each evaluation; delete an interrupted run first."""
    run = Path(str(config.output))
    if run.exists():
        print(f"{run} was interrupted: training it from scratch", flush=True)
        shutil.rmtree(run)
    for step in jaxdqn.train(config):
        if step.evaluation is not None:
            mean, episodes = step.evaluation.mean, step.evaluation.episodes
            print(f"seed {config.seed} frame {step.progress.frames:,}: {mean:.1f} over {episodes}", flush=True)


def scored(run: Path, seed: int, episodes: int, solved: float = SOLVED) -> dict[str, Any]:
    """Return the row of a seed; a file in the run's folder keeps what was played for the next time."""
    path = run / f"scores_{episodes}.json"
    if not path.exists() or not set(PLAYED) <= read_json(path).keys():
        write_json(path, play(run, episodes))
    evaluations, played = read_table(run / "evaluations.csv"), read_json(path)
    first = next((row for row in evaluations if row["mean"] >= solved), None)
    return {
        "seed": seed,
        "solved_frames": None if first is None else int(first["frames"]),
        "solved_seconds": None if first is None else round(first["elapsed_seconds"]),
        "last_evaluation_seconds": round(evaluations[-1]["elapsed_seconds"]),
        **{name: played[name] for name in PLAYED},
    }


def play(run: Path, episodes: int) -> dict[str, Any]:
    """Play fresh episodes with the best and the last agent of a run, and return what the tables report."""
    kept = Checkpoints(run / "checkpoints").index()
    best = jaxdqn.load(run, "best").evaluate(episodes, seed=0)
    last = best if kept["best"] == kept["last"] else jaxdqn.load(run, "last").evaluate(episodes, seed=0)
    values: list[Any] = []
    for which, found in (("best", best), ("last", last)):
        values += [kept[which], round(found.mean, 1), round(found.standard_error, 1), found.min]
    return dict(zip(PLAYED, values, strict=True))


def summary_of(rows: Sequence[dict[str, Any]], solved: float = SOLVED) -> dict[str, str]:
    """Return the summary of some seeds: how many hold, the median and the worst, interquartile means."""
    found = {"seeds": f"{len(rows)}"}
    for column, what, unit in (("solved_frames", "frames", ""), ("solved_seconds", "seconds", " s")):
        values = [np.inf if row[column] is None else row[column] for row in rows]
        shown = ["never" if value == np.inf else f"{value:,.0f}{unit}" for value in (np.median(values), max(values))]
        found[f"{what} to {solved:g}: median, worst"] = ", ".join(shown)
    for which in ("best", "last"):
        means = np.array([[row[f"{which}_mean"]] for row in rows])
        found[f"{which} agent at {solved:g} or more"] = f"{(means >= solved).sum()} of {len(rows)}"
        found[f"{which} agent: mean, worst seed"] = f"{means.mean():.1f}, {means.min():.1f}"
        if len(rows) >= 5:  # of fewer, resampling says little
            found[f"{which} agent: interquartile mean"] = interquartile_text(means)
    return found


if __name__ == "__main__":
    main()
