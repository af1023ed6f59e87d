"""Figures of evaluations: a panel for each variant, with its seeds, their interquartile mean and its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdqn.reporting.plots import COLOURS
from jaxdqn.storage.atomic import atomic_write
from shared.seeds import bootstrap_interval, interquartile_mean

Rows = list[dict[str, Any]]


def curves(rows: Rows, name: str) -> dict[int, list[tuple[int, float]]]:
    """Return frames and means of each seed of a variant."""
    found: dict[int, list[tuple[int, float]]] = {}
    for row in rows:
        if row["variant"] == name:
            found.setdefault(row["seed"], []).append((row["frames"], row["mean"]))
    return found


def draw(rows: Rows, names: Sequence[str], output: Path) -> None:
    """Draw a panel for each variant: each seed thin, the interquartile mean bold, with its 95 % bootstrap interval."""
    from matplotlib.figure import Figure

    columns = min(len(names), 3)
    rows_of_panels = -(-len(names) // columns)
    figure = Figure(figsize=(1 + 2.9 * columns, 0.6 + 2.3 * rows_of_panels), dpi=130, layout="constrained")
    panels = figure.subplots(rows_of_panels, columns, sharex=True, sharey=True, squeeze=False)
    for index, panel in enumerate(panels.flat):
        panel.set_visible(index < len(names))
        panel.tick_params(labelbottom=index + columns >= len(names))  # only the lowest panel of each column
    for panel, name in zip(panels.flat, names, strict=False):
        draw_panel(panel, curves(rows, name))
        panel.set_title(name, fontsize=10)
    low, high = panels[0, 0].get_ylim()  # of all panels: they share their axes
    panels[0, 0].set_ylim(low if any(row["mean"] < 0 for row in rows) else 0, max(high, 0))
    figure.supxlabel("frames", fontsize=10)
    figure.supylabel("greedy return", fontsize=10)
    with atomic_write(output) as partial:
        figure.savefig(partial, format=output.suffix.lstrip("."))


def draw_panel(panel: Any, runs: dict[int, list[tuple[int, float]]]) -> None:
    """Draw one variant."""
    style: Callable[..., dict[str, Any]] = lambda **rest: {"color": [c / 255 for c in COLOURS[0]], **rest}  # noqa: E731
    for run in runs.values():
        panel.plot(*zip(*run, strict=True), **style(lw=0.8, alpha=0.4, marker="o" if len(run) == 1 else None))
    frames = sorted(set.intersection(*({frame for frame, _ in run} for run in runs.values())))
    values = np.array([[dict(run)[frame] for frame in frames] for run in runs.values()])
    intervals = np.array([bootstrap_interval(column[:, None]) for column in values.T])
    panel.plot(frames, [interquartile_mean(column) for column in values.T], **style(lw=2))
    panel.fill_between(frames, *intervals.T, **style(alpha=0.15, lw=0))
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
