"""What a run shows: its learning curve and its agent at play."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxdqn.envs.pixels import name_of
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.envs.spaces import picture_bytes
from jaxdqn.envs.vector import Episode, EpisodeStepper
from jaxdqn.run.files import written_aside
from jaxdqn.run.policy import TrainedAgent

INK, PAPER, FAINT = (38, 42, 51), (250, 250, 247), (214, 214, 206)
COLOURS = ((31, 119, 180), (214, 96, 20), (44, 140, 80), (150, 90, 170), (120, 120, 60), (180, 60, 90))
MS_A_FRAME = 40  # 25 pictures a second: viewers slow down anything below 20 ms


def read_table(path: Path) -> list[dict[str, Any]]:
    """Rows of a run's CSV file by column; None for an empty cell, and for cells that are no number."""

    def number(cell: str | None) -> float | None:
        try:
            return float(cell) if cell else None
        except ValueError:
            return None

    with path.open(newline="") as file:
        return [{name: number(cell) for name, cell in row.items()} for row in csv.DictReader(file)]


def draw_curve(runs: Sequence[Path], output: Path, *, label: str | None = None) -> None:
    """Draw return against frames: training episodes thin and smoothed, greedy evaluations bold with standard errors.

    Args:
        runs: Folders of runs, a colour each; several are named in the legend by their folders.
        output: The picture, in any format that Matplotlib writes by its suffix.
        label: Title; None for none.
    """
    from matplotlib.figure import Figure  # without pyplot, whose backend is the user's

    figure = Figure(figsize=(7.2, 4.2), dpi=130, layout="constrained")
    axes = figure.subplots()
    for index, run in enumerate(runs):
        colour = [channel / 255 for channel in COLOURS[index % len(COLOURS)]]
        alone = len(runs) == 1
        played = [row for row in read_table(run / "metrics.csv") if row["return_mean"] is not None]
        frames, returns = _smooth([row["frames"] for row in played], [row["return_mean"] for row in played])
        axes.plot(frames, returns, color=colour, alpha=0.35, lw=1, label="training, exploring" if alone else None)
        rows = read_table(run / "evaluations.csv")
        # What every agent plays, good or bad: the mean of all episodes is over more where the first went well.
        unbiased = "screening_" if rows and rows[0].get("screening_mean") is not None else ""  # else an older run's
        axes.errorbar(
            [row["frames"] for row in rows],
            [row[f"{unbiased}mean"] for row in rows],
            [float("nan") if (error := row[f"{unbiased}standard_error"]) is None else error for row in rows],
            color=colour,
            lw=2,
            marker="o",
            ms=4,
            capsize=2,
            label="greedy evaluation ± standard error" if alone else run.name,
        )
    axes.set(xlabel="frames", ylabel="return of an episode", title=label)
    if axes.dataLim.ymin >= 0:
        axes.set_ylim(bottom=0)  # below which no return of this environment lies
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if runs:
        axes.legend(frameon=False, fontsize=8)
    with written_aside(output) as aside:
        figure.savefig(aside, format=output.suffix.lstrip(".") or "png")


def _smooth(frames: list[Any], returns: list[Any], width: int = 9) -> tuple[list[Any], list[float]]:
    means = [float(np.mean(returns[max(0, i - width + 1) : i + 1])) for i in range(len(returns))]
    return frames, means


def record_gif(agent: TrainedAgent, output: Path, *, seed: int = 0, every: int = 2, longest: int = 1000) -> float:
    """`draw_episode`, of which the raw return is given."""
    return draw_episode(agent, output, seed=seed, every=every, longest=longest).raw_return


def draw_episode(agent: TrainedAgent, output: Path, *, seed: int = 0, every: int = 2, longest: int = 1000) -> Episode:
    """Play one greedy episode of the environment of evaluations and draw it with the action values beside.

    Args:
        agent: The trained agent.
        output: The GIF.
        seed: The episode's own seed is spawned from it.
        every: Steps to a picture.
        longest: Steps after which the episode is cut.

    Returns:
        The episode; a `CutEpisode` where it was cut.

    Raises:
        FloatingPointError: If an observation or a reward is not finite.
        ValueError: If the environment cannot draw itself.
    """
    env = agent.build_env(render=True)
    try:
        pictures, episode = _play(env, agent, spawn_seeds(seed, 1, Purpose.PICTURE)[0], every, longest)
    finally:
        env.close()
    with written_aside(output) as aside:
        pictures[0].save(
            aside, format="GIF", save_all=True, append_images=pictures[1:], duration=MS_A_FRAME, loop=0, optimize=False
        )
    return episode


def _play(env: gym.Env, agent: TrainedAgent, seed: int, every: int, longest: int) -> tuple[list[Image.Image], Episode]:
    where = " of the episode that is drawn"
    stepper = EpisodeStepper([env], [seed], max_steps=longest, frame_stack=agent.frame_stack, where=where)
    pictures, values = [], []
    while True:
        values.append(np.asarray(agent.q_values(stepper.cursor.stack))[0])
        action, step, total = int(values[-1].argmax()), len(values) - 1, float(stepper.cursor.returns[0])
        if step % every == 0:
            pictures.append(_panel(_scene(env), values, action, step, total))
        _, ended = stepper.step([action], frames=step)
        for episode in stepper.finished(ended).values():
            pictures.append(_panel(_scene(env), values, action, episode.length, episode.raw_return))
            return pictures, episode


def _scene(env: gym.Env) -> np.ndarray:
    """What the environment draws, as RGB bytes."""
    picture = picture_bytes(env.render(), name_of(env))
    return np.broadcast_to(picture if picture.ndim == 3 else picture[..., None], (*picture.shape[:2], 3))


def _panel(frame: Any, values: list[np.ndarray], action: int, step: int, total: float) -> Image.Image:
    """The environment on the left; on the right each action's value over the last steps, and its lead."""
    height, width = 240, 300
    scene = Image.fromarray(np.ascontiguousarray(frame))
    scene.thumbnail((360, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (360 + width, height), PAPER)
    canvas.paste(scene, ((360 - scene.width) // 2, (height - scene.height) // 2))
    draw = ImageDraw.Draw(canvas)
    small = ImageFont.load_default(12)
    left, right, top, bottom = 376, 360 + width - 56, 60, 214
    draw.text((left, 12), f"step {step}   return {total:g}", fill=INK, font=ImageFont.load_default(15))
    recent = np.asarray(values[-120:])
    low, high = float(recent.min()), float(recent.max())
    middle, half = (low + high) / 2, max((high - low) / 2, 1e-3) * 1.1
    y = bottom - (recent - middle + half) / (2 * half) * (bottom - top)
    draw.line((left, bottom, right, bottom), fill=FAINT)
    draw.text((left, bottom + 6), f"last {len(recent)} steps", fill=INK, font=small)
    draw.text((left, 38), "action values", fill=INK, font=small)
    x = right - (len(recent) - 1 - np.arange(len(recent))) * (right - left) / 119
    for index in range(recent.shape[1]):
        colour = COLOURS[index % len(COLOURS)]
        if len(recent) > 1:
            draw.line([(float(a), float(b)) for a, b in zip(x, y[:, index], strict=True)], fill=colour, width=2)
    # Labels keep a line's height between them, in the order of the values.
    order = np.argsort(-recent[-1])
    label_y = top - 8.0
    for index in order:
        label_y = max(float(y[-1, index]) - 7, label_y)
        mark = "<" if index == action else " "
        draw.text(
            (right + 4, label_y),
            f"{index}: {recent[-1, index]:.2f}{mark}",
            fill=COLOURS[index % len(COLOURS)],
            font=small,
        )
        label_y += 14
    return canvas.quantize(64, dither=Image.Dither.NONE)  # 75 kB and not 475 while an episode is played
