"""Reproduce the README's result: train a preset with several seeds, score every agent afresh, draw the curves.

    python3 experiments/cartpole_pixels.py --seeds 0 1 2 3 4 --output runs/cartpole-pixels

Each seed is a run of its own under the output folder; a seed that was trained to its end with the same config is not
trained again, so an interrupted experiment goes on where it stopped, with the seed that was interrupted from its
beginning. It leaves `results.csv` (one row a seed), `curves.png`, and prints the table. Further flags of `jaxdqn train`
are taken after `--`.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.command_line import split_flags

import jaxdqn
from jaxdqn.checkpoints.agent import Checkpoints
from jaxdqn.cli.flags import parse_config
from jaxdqn.config import Config
from jaxdqn.evaluation.trained_agent import read_config
from jaxdqn.presets import PRESETS
from jaxdqn.reporting.plots import draw_curve, read_table
from jaxdqn.storage.atomic import atomic_write

SOLVED = 475.0


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    words, flags = split_flags(args)
    parser = argparse.ArgumentParser(description="Train a preset with several seeds and score every agent afresh.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--preset", choices=PRESETS, default="cartpole")
    parser.add_argument("--episodes", type=int, default=100, help="fresh greedy episodes to score an agent by")
    parser.add_argument("--output", type=Path, default=Path("runs/cartpole-pixels"))
    options = parser.parse_args(words)
    if options.episodes < 1:
        parser.error(f"--episodes {options.episodes} must be at least 1")
    try:
        given = parse_config(flags, PRESETS[options.preset])
        for name in ("seed", "output"):
            if getattr(given, name) != getattr(PRESETS[options.preset], name):
                raise ValueError(f"--{name} is given by the experiment: use its own flags, before --")
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
    print(f"kept in {options.output}: results.csv, curves.png and a run for each seed")


def is_finished(run: Path, config: Config) -> bool:
    """Whether a run of this config was trained to its end.

    Raises:
        ValueError: If the folder holds a run of another config, which is left alone.
    """
    if not run.exists():
        return False
    found = read_config(run)
    if config.capacity is None:  # what was found to fit is in the run's own
        found = dataclasses.replace(found, capacity=None)
    if found != config:
        raise ValueError(f"{run} holds a run of another config: choose another --output")
    evaluations = run / "evaluations.csv"
    rows = read_table(evaluations) if evaluations.exists() else []
    return bool(rows) and rows[-1]["frames"] >= config.total_frames


def train(config: Config) -> None:
    """Run one seed to its end, with a line an evaluation; what an interrupted run left is removed."""
    run = Path(str(config.output))
    if run.exists():
        print(f"{run} was interrupted: it is trained again", flush=True)
        shutil.rmtree(run)
    for step in jaxdqn.train(config):
        if step.evaluation is not None:
            mean, episodes = step.evaluation.mean, step.evaluation.episodes
            print(f"seed {config.seed} frame {step.progress.frames:,}: {mean:.1f} over {episodes}", flush=True)


def score(run: Path, episodes: int) -> dict[str, Any]:
    """What the README reports of a seed."""
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
    """The table so far."""
    with atomic_write(path) as aside, aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
