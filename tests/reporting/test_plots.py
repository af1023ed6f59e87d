"""Learning curves with any returns, any number of runs, and any folder names."""

import csv
import json
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image
from running import command

import jaxdqn
from jaxdqn.reporting.logger import EVALUATION_COLUMNS, metrics_columns


def run_of(folder, training=(), evaluations=(), every=1000):
    """Write the CSV files of a run, with a row every `every` frames.

    Args:
        folder: The run's folder.
        training: Mean returns of training.
        evaluations: Mean, standard error and minimum of each evaluation.
        every: Frames between rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = ("screening_mean", "screening_standard_error", "min")
    rows = [dict(zip(names, row, strict=True), mean=row[0], standard_error=row[1]) for row in evaluations]
    for name, columns, found in (
        ("metrics.csv", metrics_columns(), [{"return_mean": value} for value in training]),
        ("evaluations.csv", EVALUATION_COLUMNS, rows),
    ):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows({"frames": every * (index + 1), **row} for index, row in enumerate(found))
    return folder


@pytest.fixture
def figures(monkeypatch):
    """Return a list of all figures that are saved, the newest last."""
    saved, save = [], matplotlib.figure.Figure.savefig

    def remember(figure, *args, **options):
        saved.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", remember)
    return saved


@pytest.fixture
def draw(figures, tmp_path):
    """Return a function that draws runs and returns the axes."""

    def draw_runs(*runs, **options):
        jaxdqn.draw_curve(runs, tmp_path / "curve.png", **options)
        return figures[-1].axes[0]

    return draw_runs


def legend_of(axes):
    legend = axes.get_legend() or axes.figure.legends[0]
    return [text.get_text() for text in legend.get_texts()]


def drawn_values(axes):
    lines = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    bars = [np.reshape(bar, (-1, 2))[:, 1] for bars in axes.collections for bar in bars.get_segments()]  # NaN: empty
    values = np.concatenate([*lines, *bars])
    return values[np.isfinite(values)]


def coloured_pixels(path):
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.ptp(pixels, axis=-1) > 30).sum())


RETURNS = {
    "MountainCar before the first success": ([-200.0] * 30, [(-200.0, 0.0, -200.0)] * 3),
    "MountainCar with error bars below the lowest return": ([-200.0, -150.0], [(-199.0, 30.0, -200.0)]),
    "Pong with both signs": (np.linspace(-21, 21, 40), [(-20.5, 0.3, -21.0), (20.8, 0.2, 18.0)]),
    "all 0": ([0.0] * 20, [(0.0, 0.0, 0.0)] * 2),
    "all the same and positive": ([500.0] * 20, [(500.0, 0.0, 500.0)]),
    "one row of training, without an evaluation": ([9.0], []),
    "one evaluation, without training": ([], [(-3.0, 1.0, -5.0)]),
    "up to a million": (np.linspace(-2e5, 1e6, 30), [(1e6, 1e4, 9e5)]),
    "tiny": ([1e-9, 3e-9], [(2e-9, 1e-10, 1e-9)]),
    "different only by rounding": ([-200.0, -200.0 + 1e-13], [(-200.0, 1e-14, -200.0)]),
    "gaps": (["", -5.0, "nan", -7.0, "", "inf", -6.0], [("nan", "", ""), (-6.0, "nan", "nan"), ("", "", "")]),
}


@pytest.mark.parametrize("kind", RETURNS)
def test_axis_limits_contain_all_values_with_a_margin(draw, kind, tmp_path):
    axes = draw(run_of(tmp_path / "run", *RETURNS[kind]))
    values, (bottom, top) = drawn_values(axes), axes.get_ylim()
    assert len(values)
    assert values.max() + 0.01 * (top - bottom) < top
    assert bottom + 0.01 * (top - bottom) < values.min() or (bottom == 0 and values.min() >= 0)
    assert top - bottom < 3 * np.ptp([*values, 0.0]) + 3  # the curve is not tiny within the limits
    assert coloured_pixels(tmp_path / "curve.png") > 10


@pytest.mark.parametrize(
    ("training", "evaluations", "from_zero"),
    [
        pytest.param([1.0, 2.0], [(1.0, 5.0, 0.0)], True, id="an error bar reaches below 0, no return does"),
        pytest.param([100.0, 100.0, -1.0, 100.0], [], False, id="smoothing hides the only negative return"),
        pytest.param([100.0], [(90.0, 1.0, -5.0)], False, id="only an evaluation's lowest episode is negative"),
        pytest.param([-1.0], [(5.0, 1.0, 4.0)], False, id="only training is negative"),
        pytest.param([0.0, 3.0], [(3.0, 0.0, 3.0)], True, id="none is negative"),
    ],
)
def test_the_axis_starts_at_0_only_if_no_return_is_negative(draw, training, evaluations, from_zero, tmp_path):
    bottom, top = draw(run_of(tmp_path / "run", training, evaluations)).get_ylim()
    assert (bottom == 0) == from_zero
    assert bottom < top


def test_a_nan_return_does_not_remove_later_returns(draw, tmp_path):
    axes = draw(run_of(tmp_path / "run", [1.0] * 10 + ["nan"] + [1.0] * 10, [("nan", "nan", "nan"), (1.0, 0.1, 1.0)]))
    training, evaluation = (np.asarray(line.get_ydata(), float) for line in axes.lines[:2])
    assert np.array_equal(training, np.ones(20))
    assert np.array_equal(evaluation, np.ones(1))


def test_a_run_without_rows_shows_a_message(draw, tmp_path):
    axes = draw(run_of(tmp_path / "run"))
    assert [text.get_text() for text in axes.texts] == ["no episode has ended yet"]
    assert axes.get_legend() is None


def test_the_legend_has_no_evaluation_before_the_first_one(draw, tmp_path):
    assert legend_of(draw(run_of(tmp_path / "run", [1.0, 2.0]))) == ["training, exploring"]


def test_ticks_are_whole_frames_and_returns_without_exponents(draw, tmp_path):
    axes = draw(run_of(tmp_path / "one", [1e6], every=10))
    assert [text.get_text() for text in axes.get_xticklabels()] == ["9", "10", "11"]  # the view ends between two
    assert "1,000,000" in [text.get_text() for text in axes.get_yticklabels()]
    axes = draw(run_of(tmp_path / "two", [-0.3, 0.1], [(0.1, 0.0, 0.1)]))
    assert {"\N{MINUS SIGN}0.3", "0", "0.1"} <= {text.get_text() for text in axes.get_yticklabels()}


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("a/run", "b/run"), ["a/run", "b/run"]),
        (("a/run/", "b/other/"), ["run", "other"]),
        (("a/x/run", "b/x/run", "run"), ["a/x/run", "b/x/run", "here/run"]),
        ((".", "../there"), ["here", "there"]),
        (("_private", "$5 or 6$", r"$\bad{"), ["_private", "$5 or 6$", r"$\bad{"]),
    ],
)
def test_names_in_the_legend_are_unique(draw, folders, names, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    runs = [run_of(Path(folder), [1.0, 2.0], [(2.0, 0.1, 1.0)]) for folder in folders]
    assert legend_of(draw(*runs)) == names


def test_the_legend_shows_the_name_of_a_symbolic_link(draw, tmp_path):
    (tmp_path / "newest").symlink_to(run_of(tmp_path / "run-7", [1.0]))
    assert legend_of(draw(tmp_path / "newest", run_of(tmp_path / "run-6", [1.0]))) == ["newest", "run-6"]


def test_more_runs_than_colours_look_different(draw, tmp_path):
    axes = draw(*(run_of(tmp_path / f"seed{i}", [1.0, 2.0], [(2.0, 0.0, 2.0)]) for i in range(26)))
    bold = [line for line in axes.lines if line.get_linewidth() == 2 and len(line.get_xdata()) and line.get_marker()]
    looks = {(tuple(line.get_color()), line.get_linestyle()) for line in bold if line.get_linestyle() != "None"}
    assert len(looks) >= 24  # the other two differ by their marker
    assert legend_of(axes) == [f"seed{i}" for i in range(26)]


def test_long_names_do_not_shrink_the_axes(draw, tmp_path):
    axes = draw(*(run_of(tmp_path / f"{'long-' * 20}{i}" / "run", [1.0, 2.0]) for i in range(2)))
    assert axes.get_window_extent().width > 500
    assert axes.figure.legends[0].get_window_extent().x1 <= axes.figure.bbox.x1


def plotted(figures, tmp_path, *envs):
    """Return the title and the legend of `jaxdqn plot`; None stands for the user's own environment."""
    runs = [run_of(tmp_path / f"run{index}", [1.0, 2.0]) for index in range(len(envs))]
    for run, env in zip(runs, envs, strict=True):
        config = jaxdqn.Config() if env is None else jaxdqn.Config(env=env)
        (run / "config.json").write_text(json.dumps(config.to_dict()))
        (run / "versions.json").write_text(json.dumps({"own": ["env_fn"] if env is None else []}))
    assert command("plot", *runs, "--output", tmp_path / "curve.png") == 0
    axes = figures[-1].axes[0]
    return axes.get_title(), legend_of(axes)


def test_the_title_is_the_environment_if_all_runs_have_the_same(figures, tmp_path):
    assert plotted(figures, tmp_path, "Acrobot-v1", "Acrobot-v1") == ("Acrobot-v1", ["run0", "run1"])


def test_the_legend_names_the_environments_if_they_differ(figures, tmp_path):
    title, legend = plotted(figures, tmp_path, "Acrobot-v1", "CartPole-v1", None)
    assert title == ""
    assert legend == ["run0 (Acrobot-v1)", "run1 (CartPole-v1)", "run2 (own environment)"]


def test_the_users_own_environment_is_not_named_cartpole(figures, tmp_path):
    assert plotted(figures, tmp_path, None) == ("", ["training, exploring"])
