"""Learning curves: the return of an episode against frames, from the CSV files of runs."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdqn.evaluation.loading import read_config
from jaxdqn.storage.atomic import atomic_write, read_json

COLOURS = (
    *((31, 119, 180), (214, 96, 20), (44, 140, 80), (150, 90, 170), (120, 120, 60), (180, 60, 90)),
    *((0, 160, 175), (200, 150, 0), (60, 60, 150), (225, 115, 185), (125, 75, 45), (110, 120, 135)),
)
LINE_STYLES, MARKERS = ("-", "--", ":", "-."), "os^Dv<>"
RUNS_INSIDE, CHARACTERS_INSIDE = 6, 40  # a legend with more runs or longer names would hide lines: it is put outside
ROWS_BESIDE = 23  # lines of a legend that fit the height of the figure


def read_table(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's CSV file, each by column; None for a cell that is empty or not a number."""

    def number(cell: str | None) -> float | None:
        try:
            return float(cell) if cell else None
        except ValueError:
            return None

    with path.open(newline="") as file:
        rows = csv.DictReader(file, restkey="")  # the key of extra cells, which are skipped
        return [{name: number(cell) for name, cell in row.items() if name} for row in rows]


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return a name for each folder: the shortest end of its path that is unique among the folders.

    `runs/x` alone is `x`; `a/run` and `b/run` are `a/run` and `b/run`. Two spellings of one folder give one name.
    """
    # Not `resolve`: a symbolic link keeps the name that the user gave it.
    paths = [Path(os.path.abspath(folder)).parts for folder in folders]  # noqa: PTH100

    def shortest(parts: tuple[str, ...]) -> tuple[str, ...]:
        others = [other for other in paths if other != parts]
        ends = (parts[-length:] for length in range(1, len(parts)))
        return next((end for end in ends if all(other[-len(end) :] != end for other in others)), parts)

    return [Path(*shortest(parts)).as_posix() for parts in paths]


def env_of_run(run: Path) -> str | None:
    """Return the id of the environment that a run was trained on; None if the user gave it an `env_fn`.

    Raises:
        ValueError: If the folder is not the folder of a run.
    """
    config, versions = read_config(run), run / "versions.json"
    given = read_json(versions).get("own", []) if versions.is_file() else []
    return None if isinstance(given, list | dict) and "env_fn" in given else config.env


class Curve(NamedTuple):
    """The learning curve of one run; all values are finite, except unknown errors.

    Attributes:
        frames: Frames `[N]` at which training episodes ended.
        returns: Their mean returns `[N]`, smoothed.
        evaluated: Frames `[M]` of evaluations.
        means: Their mean returns `[M]`.
        errors: Their standard errors `[M]`; NaN if unknown.
        lowest: The lowest return in the files, before smoothing; infinity if there is none.
    """

    frames: Float[np.ndarray, " N"]
    returns: Float[np.ndarray, " N"]
    evaluated: Float[np.ndarray, " M"]
    means: Float[np.ndarray, " M"]
    errors: Float[np.ndarray, " M"]
    lowest: float


def read_curve(run: Path) -> Curve:
    """Read a run's `metrics.csv` and `evaluations.csv`; rows without a finite return are left out."""
    training = _columns(read_table(run / "metrics.csv"), "frames", "return_mean")
    frames, returns = training[:, np.isfinite(training).all(axis=0)]
    rows = read_table(run / "evaluations.csv")
    columns = _columns(rows, "frames", "mean", "standard_error", "screening_mean", "screening_standard_error", "min")
    at, means, errors, screening_means, screening_errors, lowest = columns[:, np.isfinite(columns[:2]).all(axis=0)]
    # Every agent plays the screening episodes. The mean of all episodes is biased: an agent plays more if it did well.
    if np.isfinite(screening_means).all():  # runs of older versions lack them
        means, errors = screening_means, screening_errors
    errors = np.where(np.isfinite(errors), errors, np.nan)
    known = np.concatenate([returns, means, lowest[np.isfinite(lowest)]])
    return Curve(frames, _smooth(returns), at, means, errors, float(known.min(initial=np.inf)))


def _columns(rows: list[dict[str, Any]], *names: str) -> np.ndarray:
    cells = [[np.nan if (cell := row.get(name)) is None else cell for row in rows] for name in names]
    return np.array(cells, float).reshape(len(names), len(rows))


def _smooth(returns: np.ndarray, width: int = 9) -> np.ndarray:
    return np.array([returns[max(0, i - width + 1) : i + 1].mean() for i in range(len(returns))])


def y_limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return limits of the y axis that contain every line and error bar, with a margin.

    The axis starts at 0 if no return is negative, even if an error bar reaches below 0. Returns that are all the same
    and not positive are drawn as a line in the middle.
    """
    reach = [np.concatenate([c.returns, c.means, *(c.means + sign * c.errors for sign in (-1, 1))]) for c in curves]
    values = np.concatenate([np.zeros(0), *reach])
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if high > 0 and min(curve.lowest for curve in curves) >= 0:
        return 0.0, 1.05 * high
    size = max(abs(low), abs(high))
    # If returns are equal up to rounding, the range of the axis is proportional to their size.
    margin = 0.05 * (high - low if high - low > 1e-6 * size else size) or 1.0
    return low - margin, high + margin


def draw_curve(
    runs: Sequence[Path], output: Path, *, label: str | None = None, envs: Sequence[str | None] = ()
) -> None:
    """Draw return against frames: training episodes thin and smoothed, greedy evaluations bold with standard errors.

    Args:
        runs: Folders of runs. If there are several, each has its own colour, line style and marker, and the legend
            shows the shortest names that tell the folders apart.
        output: The image file, in any format that Matplotlib can write; its suffix chooses the format.
        label: The title; None takes the environment, if `envs` names the same one for all runs.
        envs: The environment of each run, None for one without an id; if they differ, the legend names them.

    Raises:
        OSError: If a run has no `metrics.csv` or no `evaluations.csv`, or the picture cannot be written.
        ValueError: If Matplotlib does not know the suffix.
    """
    from matplotlib.figure import Figure  # not pyplot, because its backend belongs to the user

    figure = Figure(figsize=(7.2, 4.2), dpi=130, layout="constrained")
    axes: Any = figure.subplots()
    curves = [read_curve(run) for run in runs]
    handles = [_draw_run(axes, curve, index) for index, curve in enumerate(curves)]
    texts = short_names(runs)
    if len(set(envs)) > 1:
        texts = [f"{text} ({env or 'own environment'})" for text, env in zip(texts, envs, strict=True)]
    elif label is None and envs:
        label = envs[0]
    if len(runs) == 1:  # the legend names the two kinds of lines, and not the run
        kinds = ("training, exploring", "greedy evaluation ± standard error")
        drawn = [(line, kind) for line, kind in zip(handles[0], kinds, strict=True) if line is not None]
        handles, texts = [line for line, _ in drawn], [kind for _, kind in drawn]
    else:
        handles = [evaluation or training for training, evaluation in handles]
    axes.set(xlabel="frames", ylabel="return of an episode", ylim=y_limits(curves))
    axes.set_title(label or "", parse_math=False)  # a name with dollar signs is not a formula
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _, axis=axis: _number(value, np.ptp(axis.get_view_interval())))
    if not any(len(curve.frames) + len(curve.means) for curve in curves):
        axes.text(0.5, 0.5, "no episode has ended yet", ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
    explanation = "bold: greedy evaluation\nthin: training, exploring" if len(runs) > 1 else None
    _draw_legend(figure, axes, handles, texts, explanation)
    with atomic_write(output) as partial:
        figure.savefig(partial, format=output.suffix.lstrip(".") or "png")


def _draw_run(axes: Any, curve: Curve, index: int) -> tuple[Any, Any]:
    """Draw one run; return the artists of its training and of its evaluations, None if there are no values."""
    colour = [channel / 255 for channel in COLOURS[index % len(COLOURS)]]
    # Style and marker change every six runs: they separate runs with the same colour, or with similar colours.
    style, marker = LINE_STYLES[index // 6 % len(LINE_STYLES)], MARKERS[index // 6 % len(MARKERS)]
    dot = "." if len(curve.frames) == 1 else None  # a line of one point would not be seen
    # Draw above the frame of the axes, without clipping: returns of 0 lie on the lower edge.
    common = {"color": colour, "ls": style, "zorder": 3}
    (training,) = axes.plot(curve.frames, curve.returns, alpha=0.35, lw=1, marker=dot, clip_on=False, **common)
    evaluation = axes.errorbar(
        curve.evaluated, curve.means, curve.errors, lw=2, marker=marker, ms=4, capsize=2, **common
    )
    evaluation.lines[0].set_clip_on(False)
    return training if len(curve.frames) else None, evaluation if len(curve.means) else None


def _number(value: float, span: float) -> str:
    """Return the text of a tick: 12,500 and not 1.25e4, and 0 for a value that is 0 up to rounding."""
    text = f"{0.0 if abs(value) < 1e-9 * span else value:,.10g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _draw_legend(figure: Any, axes: Any, handles: Sequence[Any], texts: Sequence[str], title: str | None) -> None:
    if not texts:
        return
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], visible=False) if handle is None else handle for handle in handles]
    longest, columns = max(map(len, [*texts, "greedy evaluation"])), -(-len(texts) // ROWS_BESIDE)
    style = {"frameon": False, "fontsize": 8, "title_fontsize": 8, "alignment": "left", "title": title}
    names = [str(index) for index in range(len(texts))]
    if len(texts) <= RUNS_INSIDE and longest <= CHARACTERS_INSIDE:
        legend = axes.legend(lines, names, **style)
    else:
        figure.set_figwidth(figure.get_figwidth() + columns * (0.6 + 0.07 * longest))
        legend = figure.legend(lines, names, loc="outside right upper", ncols=columns, handlelength=3, **style)
    # Set names after the legend is made: Matplotlib drops names that start with an underscore, and parses dollar signs
    # as formulas.
    for shown, text in zip(legend.get_texts(), texts, strict=True):
        shown.set_text(text)
        shown.set_parse_math(False)
