"""The same seeds with one setting changed: trained, tabulated and drawn; shared by `collapse.py` and `n_step_ends.py`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from seeds import bootstrap_interval, interquartile_mean, train_side_by_side, write_table

from jaxdqn.config import Config
from jaxdqn.flags import parse_config
from jaxdqn.presets import PRESETS
from jaxdqn.returns import NStepReturn, n_step_return
from jaxdqn.run.files import written_aside
from jaxdqn.run.pictures import COLOURS, read_table

SOLVED = 475.0


class Variant(NamedTuple):
    """What is changed.

    Attributes:
        name: In tables and pictures.
        changes: Fields of the config.
        returns: Its targets.
    """

    name: str
    changes: dict[str, Any]
    returns: NStepReturn = n_step_return


def run_variants(name: str, variants: Sequence[Variant], description: str | None, *, seeds: Sequence[int]) -> None:
    """The command line of an experiment: train what is not trained yet, print the table, draw the picture."""
    words = sys.argv[1:]
    flags = words[words.index("--") + 1 :] if "--" in words else []
    words = words[: words.index("--")] if "--" in words else words
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--only", nargs="+", default=None, help="names of variants, as the table has them")
    parser.add_argument("--every", type=int, default=1_500, help="frames between evaluations")
    parser.add_argument("--episodes", type=int, default=10, help="greedy episodes of an evaluation")
    parser.add_argument("--together", type=int, default=1, help="seeds in one program; more are for accelerators")
    parser.add_argument("--output", type=Path, default=Path("runs") / name.replace("_", "-"))
    options = parser.parse_args(words)
    for field in ("every", "episodes", "together"):
        if getattr(options, field) < 1:
            parser.error(f"--{field} {getattr(options, field)} must be at least 1")
    known = [variant.name for variant in variants]
    for wanted in options.only or []:
        if wanted not in known:
            parser.error(f"--only {wanted!r}: choose from {', '.join(known)}")
    chosen = [variant for variant in variants if options.only is None or variant.name in options.only]
    try:
        config = parse_config(flags, PRESETS["cartpole"])
        configs = {variant.name: dataclasses.replace(config, **variant.changes) for variant in chosen}
    except ValueError as error:
        parser.error(str(error))
    options.output.mkdir(parents=True, exist_ok=True)
    for variant in chosen:
        for first in range(0, len(options.seeds), options.together):
            group = options.seeds[first : first + options.together]
            train_group(options.output, variant, configs[variant.name], group, options)
    rows = gather(options.output)
    write_table(options.output / f"{name}.csv", rows)
    print(table(rows, [name for name in known if any(row["variant"] == name for row in rows)]))
    draw(rows, known, options.output / f"{name}.png")


def train_group(folder: Path, variant: Variant, config: Config, seeds: Sequence[int], options: Any) -> None:
    """Train some seeds of a variant, unless they were trained before; a file a seed, written when it is done."""
    files = [folder / f"{variant.name.replace(' ', '-')}-{seed}.csv" for seed in seeds]
    if all(file.exists() for file in files):
        return
    found: list[list[dict[str, Any]]] = [[] for _ in seeds]
    scores = train_side_by_side(config, seeds, returns=variant.returns, every=options.every, episodes=options.episodes)
    for frames, returns in scores:
        for index, seed in enumerate(seeds):
            mean, lowest = round(float(returns[index].mean()), 1), float(returns[index].min())
            found[index].append({"variant": variant.name, "seed": seed, "frames": frames, "mean": mean, "min": lowest})
            print(f"{variant.name}, seed {seed}, frame {frames:,}: {mean:.1f}, at least {lowest:g}", flush=True)
    for file, rows in zip(files, found, strict=True):
        write_table(file, rows)


def gather(folder: Path) -> list[dict[str, Any]]:
    """All evaluations of all files of a folder."""
    rows = []
    for path in sorted(folder.glob("*-*.csv")):
        name = path.stem.rsplit("-", 1)[0].replace("-", " ")
        rows += [
            {**row, "variant": name, "seed": int(row["seed"]), "frames": int(row["frames"])} for row in read_table(path)
        ]
    return rows


def table(rows: list[dict[str, Any]], names: Sequence[str]) -> str:
    """A row a variant, in Markdown."""
    lines = ["| | solved | first at | from then on | below 475 | last |", "|---|---|---|---|---|---|"]
    for name in names:
        runs = curves(rows, name)
        solved = {
            seed: next((i for i, (_, mean) in enumerate(run) if mean >= SOLVED), None) for seed, run in runs.items()
        }
        after = [
            mean for seed, run in runs.items() if (first := solved[seed]) is not None for _, mean in run[first + 1 :]
        ]
        firsts = [run[first][0] for seed, run in runs.items() if (first := solved[seed]) is not None]
        last = np.array([run[-1][1] for run in runs.values()])
        cells = [
            name,
            f"{len(firsts)} of {len(runs)}",
            f"{int(np.median(firsts)):,}" if firsts else "-",
            f"{np.mean(after):.0f}, at least {min(after):.0f}" if after else "-",
            f"{np.mean(np.array(after) < SOLVED):.0%}" if after else "-",
            f"{last.mean():.0f}, at least {last.min():.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curves(rows: list[dict[str, Any]], name: str) -> dict[int, list[tuple[int, float]]]:
    """Frames and means of each seed of a variant."""
    seeds = sorted({row["seed"] for row in rows if row["variant"] == name})
    return {
        seed: [(row["frames"], row["mean"]) for row in rows if (row["variant"], row["seed"]) == (name, seed)]
        for seed in seeds
    }


def draw(rows: list[dict[str, Any]], names: Sequence[str], output: Path) -> None:
    """A panel a variant: each seed thin, their interquartile mean bold, with its 95 % interval."""
    from matplotlib.figure import Figure

    shown = [name for name in names if any(row["variant"] == name for row in rows)]
    wide = min(len(shown), 3)
    tall = -(-len(shown) // wide)
    figure = Figure(figsize=(1 + 2.9 * wide, 0.6 + 2.3 * tall), dpi=130, layout="constrained")
    panels = figure.subplots(tall, wide, sharex=True, sharey=True, squeeze=False)
    for panel in panels.flat[len(shown) :]:
        panel.set_visible(False)
    for panel, name in zip(panels.flat, shown, strict=False):
        runs = curves(rows, name)
        colour = [channel / 255 for channel in COLOURS[0]]
        for run in runs.values():
            panel.plot(*zip(*run, strict=True), color=colour, lw=0.8, alpha=0.4)
        frames = sorted(set.intersection(*({frame for frame, _ in run} for run in runs.values())))
        values = np.array([[dict(run)[frame] for frame in frames] for run in runs.values()])
        intervals = np.array([bootstrap_interval(column[:, None]) for column in values.T])
        panel.plot(frames, [interquartile_mean(column) for column in values.T], color=colour, lw=2)
        panel.fill_between(frames, *intervals.T, color=colour, alpha=0.15, lw=0)
        panel.set(title=name, ylim=(0, 510))
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
    figure.supxlabel("frames", fontsize=10)
    figure.supylabel("greedy return", fontsize=10)
    with written_aside(output) as aside:
        figure.savefig(aside, format=output.suffix.lstrip("."))
