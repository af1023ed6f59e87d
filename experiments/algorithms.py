"""Compare every algorithm of the DQN family on one task, with the same seeds and settings, and time their updates.

    python3 experiments/algorithms.py --task cartpole --seeds 200 201 202 --output runs/algorithms-cartpole [-- FLAGS]
    python3 experiments/algorithms.py --task breakout --seeds 200 201 202 --output runs/algorithms-breakout

Arguments: `--task` (`cartpole`: pixel CartPole; `breakout`: MinAtar's Breakout, from gymnax), `--seeds`, `--only
ALGORITHM ...`, `--together` (seeds in one program), `--every` (frames between evaluations), `--episodes` (of an
evaluation), `--output`; FLAGS are flags of `jaxdqn train`. All runs are on the device loop. It writes `algorithms.csv`
(one row for each evaluation), `algorithms.png` (a panel for each algorithm: each seed, the interquartile mean and its
95 % interval) and `algorithms_table.csv`, and prints that table: the last return, the mean over all evaluations, and
the time and the arithmetic of an update relative to plain DQN's. No setting was tuned for any algorithm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from shared.curves import Rows
from shared.seeds import markdown, write_table
from shared.update_costs import Cost, costs
from shared.variants import Variant, return_cells, run_variants

import jaxdqn
from jaxdqn.algorithms import ALGORITHMS
from jaxdqn.config import Config
from jaxdqn.presets import PRESETS

SEEDS = [200, 201, 202]
TASKS = {
    "cartpole": dataclasses.replace(PRESETS["cartpole"], total_frames=6_000, capacity=6_000),
    # Young and Tian's sizes, with an update every four steps; shorter, and so are the schedules.
    "breakout": Config(
        env="MinAtar/Breakout-v1",
        total_frames=60_000,
        frames_per_batch=32,
        batch_size=32,
        updates_per_batch=8,
        capacity=60_000,
        warmup_frames=2_000,
        learning_rate=2.5e-4,
        learning_rate_end=2.5e-4,
        n_steps=3,
        gamma=0.99,
        epsilon_end=0.05,
        epsilon_frames=15_000,
    ),
}
VARIANTS = tuple(Variant(name, dict(pieces)) for name, pieces in ALGORITHMS.items())


def table(rows: Rows, names: Sequence[str], found: dict[str, Cost]) -> list[dict[str, Any]]:
    """Return a row for each algorithm: returns with 95 % bootstrap intervals over seeds, and costs."""
    lines = []
    for name in names:
        line = {"algorithm": name, **return_cells(rows, name)}
        cost = found[name]
        lines.append({**line, "time of an update": f"{cost.time:.2f}", "arithmetic": f"{cost.operations:.2f}"})
    return lines


def report_costs(rows: Rows, names: Sequence[str], *, configs: Sequence[Config], folder: Path, rounds: int) -> str:
    """Time the updates, save the table, and return it as Markdown."""
    base = dataclasses.replace(configs[0], **ALGORITHMS["dqn"])
    small = {"updates_per_batch": 8, "capacity": 1_000}
    timed = {"dqn": base} | dict(zip(names, configs, strict=True))
    run = jaxdqn.make_device_run(base)
    timed = {name: dataclasses.replace(config, **small) for name, config in timed.items()}
    found = costs(timed, run.obs, int(run.env.action_space.n), rounds)
    lines = table(rows, names, found)
    write_table(folder / "algorithms_table.csv", lines)
    return markdown(lines)


def main(args: Sequence[str] | None = None) -> None:
    """Train, time and report."""
    make_table = partial(report_costs, rounds=10)
    run_variants("algorithms", VARIANTS, __doc__, seeds=SEEDS, args=args, tasks=TASKS, make_table=make_table)


if __name__ == "__main__":
    main()
