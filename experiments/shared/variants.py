"""Experiments that train the same seeds with one setting changed, on the device: command line, files and figures."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxdqn.config import Config
from jaxdqn.presets import PRESETS
from jaxdqn.reporting.plots import read_table
from jaxdqn.storage.atomic import write_json
from shared.command_line import config_of, positive, split_flags
from shared.curves import Rows, curves, draw
from shared.seeds import Scores, interquartile_text, train_side_by_side, write_table

SOLVED = 475.0
MakeTable = Callable[..., str]
"""`(rows of evaluations, names of variants, configs=..., folder=...) -> table`, which may write files to the folder."""


class Variant(NamedTuple):
    """One changed setting.

    Attributes:
        name: Name in tables and figures.
        changes: Changed fields of the config.
        pieces: Pieces of the agent's own, as keywords of `make_device_run`.
    """

    name: str
    changes: Mapping[str, Any] = MappingProxyType({})
    pieces: Mapping[str, Any] = MappingProxyType({})


def make_parser(description: str | None, name: str, every: int = 1_500) -> argparse.ArgumentParser:
    """Return a parser with the flags that all experiments on the device have."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--every", type=positive, default=every, help="frames between evaluations")
    parser.add_argument("--episodes", type=positive, default=10, help="greedy episodes of an evaluation")
    parser.add_argument("--output", type=Path, default=Path("runs") / name.replace("_", "-"))
    return parser


def run_variants(
    name: str,
    variants: Sequence[Variant] | Mapping[str, Sequence[Variant]],
    description: str | None,
    *,
    seeds: Sequence[int] | Mapping[str, Sequence[int]],
    args: Sequence[str] | None = None,
    tasks: Mapping[str, Config] | None = None,
    make_table: MakeTable | None = None,
    every: int = 1_500,
) -> None:
    """Run the command line of an experiment: train what is not trained yet, print the table, draw the figure.

    Args:
        name: Name of the files.
        variants: What is compared; a mapping has those of each task.
        description: First line of the help.
        seeds: The default of `--seeds`; a mapping has that of each task.
        args: The arguments; None: those of the process.
        tasks: Configs to choose one from with `--task`; None: the preset `cartpole`.
        make_table: Returns the table; None: `table`.
        every: The default of `--every`.
    """
    words, flags = split_flags(args)
    parser = make_parser(description, name, every)
    tasks = {"cartpole": PRESETS["cartpole"]} if tasks is None else tasks
    if len(tasks) > 1:
        parser.add_argument("--task", default=next(iter(tasks)), choices=list(tasks))
    of_task = variants if isinstance(variants, Mapping) else dict.fromkeys(tasks, variants)
    known = list(dict.fromkeys(variant.name for task in tasks for variant in of_task[task]))
    parser.add_argument("--seeds", type=int, nargs="+", default=None if isinstance(seeds, Mapping) else seeds)
    parser.add_argument("--only", nargs="+", default=known, choices=known, metavar="VARIANT", help=", ".join(known))
    parser.add_argument("--together", type=positive, default=1, help="seeds in one program; use more on accelerators")
    options = parser.parse_args(words)
    task = getattr(options, "task", next(iter(tasks)))
    if options.seeds is None:
        options.seeds = seeds[task]
    chosen = [variant for variant in of_task[task] if variant.name in options.only]
    try:
        config = config_of(flags, tasks[task])
        configs = [dataclasses.replace(config, **variant.changes) for variant in chosen]
        for variant, variant_config in zip(chosen, configs, strict=True):
            save_settings(options, variant, variant_config)
    except ValueError as error:
        parser.error(str(error))
    for variant, variant_config in zip(chosen, configs, strict=True):
        missing = [seed for seed in options.seeds if not csv_path(options.output, variant.name, seed).exists()]
        for first in range(0, len(missing), options.together):
            seeds = missing[first : first + options.together]
            kwargs = {"every": options.every, "episodes": options.episodes}
            try:
                scores = train_side_by_side(variant_config, seeds, **kwargs, **variant.pieces)
            except ValueError as error:
                parser.error(str(error))
            rows = collect_rows([variant.name] * len(seeds), seeds, scores)
            for seed in seeds:
                write_table(csv_path(options.output, variant.name, seed), [row for row in rows if row["seed"] == seed])
    names = [variant.name for variant in chosen]
    rows, folder = read_rows(options.output, names, options.seeds), options.output
    own = None if make_table is None else partial(make_table, configs=configs, folder=folder)
    report(rows, names, folder / name, make_table=own)


def save_settings(options: argparse.Namespace, variant: Variant, config: Config) -> None:
    """Save the settings that a variant is trained with.

    Raises:
        ValueError: If the folder already has other settings for this variant.
    """
    path = options.output / f"{variant.name.replace(' ', '-')}.json"
    new = {**config.to_dict(), "every": options.every, "episodes": options.episodes}
    old = json.loads(path.read_text()) if path.exists() else new
    changed = [f"{name} {old.get(name)} and not {value}" for name, value in new.items() if old.get(name) != value]
    if changed:
        raise ValueError(f"{path} says that runs there have {', '.join(changed)}: choose another --output")
    write_json(path, new)


def collect_rows(names: Sequence[str], seeds: Sequence[int], scores: Iterable[Scores]) -> Rows:
    """Train the runs; print a line, and return a row, for each evaluation of each run.

    The seconds of a row are those since the start, compilation included, divided by the number of runs.

    Args:
        names: The name of each run.
        seeds: The seed of each run.
        scores: The iterator of `train_side_by_side`.
    """
    rows: Rows = []
    started = time.monotonic()
    for frames, returns in scores:
        seconds = round((time.monotonic() - started) / len(seeds), 1)
        for name, seed, played in zip(names, seeds, returns, strict=True):
            mean, lowest = round(float(played.mean()), 1), float(played.min())
            row = {"variant": name, "seed": seed, "frames": frames, "mean": mean, "min": lowest, "seconds": seconds}
            rows.append(row)
            print(f"{name}, seed {seed}, frame {frames:,}: {mean:.1f}, at least {lowest:g}", flush=True)
    return rows


def csv_path(folder: Path, name: str, seed: int) -> Path:
    """Return the file of a run's evaluations."""
    return folder / f"{name.replace(' ', '-')}-{seed}.csv"


def read_rows(folder: Path, names: Sequence[str], seeds: Sequence[int]) -> Rows:
    """Return the evaluations of some variants and seeds from the files of a folder."""
    rows: Rows = []
    for name, seed in itertools.product(names, seeds):
        for row in read_table(csv_path(folder, name, seed)):
            rows.append({"seconds": "", **row, "variant": name, "seed": seed, "frames": int(row["frames"])})
    return rows


def report(rows: Rows, names: Sequence[str], output: Path, *, make_table: Callable[..., str] | None = None) -> None:
    """Save the evaluations, print the table (None: that of `table`), draw the figure."""
    shown = [name for name in names if any(row["variant"] == name for row in rows)]
    write_table(output.with_suffix(".csv"), rows)
    print((make_table or table)(rows, shown))
    draw(rows, shown, output.with_suffix(".png"))


def table(rows: Rows, names: Sequence[str]) -> str:
    """Return a Markdown table with a row for each variant: the first evaluation at 475 or more, and those after it."""
    lines = ["| | solved | first at | from then on | of these below 475 | last |", "|---|---|---|---|---|---|"]
    for name in names:
        runs = curves(rows, name).values()
        solved = [next((i for i, (_, mean) in enumerate(run) if mean >= SOLVED), None) for run in runs]
        firsts = [run[i][0] for run, i in zip(runs, solved, strict=True) if i is not None]
        after = [mean for run, i in zip(runs, solved, strict=True) if i is not None for _, mean in run[i + 1 :]]
        last = [run[-1][1] for run in runs]
        cells = [
            name,
            f"{len(firsts)} of {len(runs)}",
            f"{int(np.median(firsts)):,}" if firsts else "-",
            f"{np.mean(after):.0f}, at least {min(after):.0f}" if after else "-",
            f"{np.mean(np.array(after) < SOLVED):.0%}" if after else "-",
            f"{np.mean(last):.0f}, at least {min(last):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def return_cells(rows: Rows, name: str) -> dict[str, Any]:
    """Return the number of seeds of a variant, its last return and the mean of all its evaluations, with intervals."""
    runs = list(curves(rows, name).values())
    cells: dict[str, Any] = {"seeds": len(runs)}
    for column, values in (
        ("last return", np.array([[run[-1][1]] for run in runs])),
        ("mean of all evaluations", np.array([[np.mean([mean for _, mean in run])] for run in runs])),
    ):
        cells[column] = interquartile_text(values)
    return cells


def seconds_cell(rows: Rows, name: str) -> dict[str, Any]:
    """Return the median of the last seconds of a variant's runs; empty if their rows are older than that column."""
    last = {row["seed"]: row["seconds"] for row in rows if row["variant"] == name and row["seconds"] != ""}
    return {"seconds a seed": f"{np.median([float(seconds) for seconds in last.values()]):.0f}" if last else ""}
