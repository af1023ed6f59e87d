"""Reproduce the README's result: train a preset with several seeds, evaluate the agents again, draw the curves.

    python3 experiments/cartpole_pixels.py --seeds 0 1 2 3 4 --output runs/cartpole-pixels [-- FLAGS]

Arguments: `--seeds`, `--preset` (cartpole), `--episodes` (100, to score an agent), `--output`; FLAGS are flags of
`jaxdqn train`. Each seed is a separate run under the output folder. A seed that is already trained to its end with the
same config is not trained again; an interrupted one is trained again from scratch. It writes `results.csv` (one row for
each seed) and `curves.png`, and prints the scores of each seed.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.command_line import config_of, split_flags

import jaxdqn
from jaxdqn.checkpoints.agent_files import Checkpoints
from jaxdqn.config import Config
from jaxdqn.evaluation.loading import read_config
from jaxdqn.presets import PRESETS
from jaxdqn.reporting.plots import draw_curve, read_table
from jaxdqn.storage.atomic import atomic_write

SOLVED = 475.0


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    words, flags = split_flags(args)
    parser = argparse.ArgumentParser(description="Train a preset with several seeds and evaluate the agents again.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--preset", choices=PRESETS, default="cartpole")
    parser.add_argument("--episodes", type=int, default=100, help="greedy episodes on new seeds to score an agent")
    parser.add_argument("--output", type=Path, default=Path("runs/cartpole-pixels"))
    options = parser.parse_args(words)
    if options.episodes < 1:
        parser.error(f"--episodes {options.episodes} must be at least 1")
    try:
        given = config_of(flags, PRESETS[options.preset])
        runs = {seed: options.output / f"seed{seed}" for seed in options.seeds}
        configs = {seed: dataclasses.replace(given, seed=seed, output=str(run)) for seed, run in runs.items()}
        finished = {seed: is_finished(run, configs[seed]) for seed, run in runs.items()}
    except ValueError as error:
        parser.error(str(error))
    rows = []
    for seed, run in runs.items():
        if not finished[seed]:
            train(configs[seed])
        rows.append({"seed": seed, **score(run, options.episodes)})
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
        write(options.output / "results.csv", rows)
    label = f"{given.env}, preset {options.preset}, {len(runs)} seeds"
    draw_curve(list(runs.values()), options.output / "curves.png", label=label)
    print(f"saved in {options.output}: results.csv, curves.png and a run for each seed")


def is_finished(run: Path, config: Config) -> bool:
    """Return whether a run of this config was trained to its end.

    Raises:
        ValueError: If the folder holds a run of another config.
    """
    if not run.exists():
        return False
    found = read_config(run)
    if config.capacity is None:  # the run's config has the capacity that was chosen for the machine
        found = dataclasses.replace(found, capacity=None)
    if found != config:
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


def score(run: Path, episodes: int) -> dict[str, Any]:
    """Return what the README reports about a seed."""
    evaluations = read_table(run / "evaluations.csv")
    solved = [row for row in evaluations if row["mean"] >= SOLVED]
    kept = Checkpoints(run / "checkpoints").index()
    best = jaxdqn.load(run, "best").evaluate(episodes, seed=0)
    last = best if kept["best"] == kept["last"] else jaxdqn.load(run, "last").evaluate(episodes, seed=0)
    return {
        "solved_frames": int(solved[0]["frames"]) if solved else None,
        "solved_seconds": round(solved[0]["elapsed_seconds"]) if solved else None,
        "last_evaluation_seconds": round(evaluations[-1]["elapsed_seconds"]),
        "best_frames": kept["best"],
        "best_mean": round(best.mean, 1),
        "best_standard_error": round(best.standard_error, 1),
        "best_min": best.min,
        "last_frames": kept["last"],
        "last_mean": round(last.mean, 1),
        "last_standard_error": round(last.standard_error, 1),
        "last_min": last.min,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table so far."""
    with atomic_write(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
