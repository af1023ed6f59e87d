"""One picture of an episode: the environment on the left, the action values on the right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from jaxdqn.reporting.plots import COLOURS

INK, PAPER, FAINT, BAND = (38, 42, 51), (250, 250, 247), (214, 214, 206), (226, 226, 219)
HEIGHT, SCENE_WIDTH, SCENE_THINNEST = 240, 360, 8
LEFT, RIGHT, TOP, BOTTOM = 16, 244, 60, 214  # edges of the plot, which is right of the scene
LABEL_LEFT, LABEL_HEIGHT, LABEL_TOP, LABEL_BOTTOM = RIGHT + 14, 14, 52, 224  # see `label_positions`
NAME_WIDTH = 100  # enough for the longest action name of Atari
STEPS = 120  # number of steps in the plot
SCENE_COLOURS = 192  # of the 256 colours of a GIF
ALL_SHOWN, MOST_SHOWN = 12, 6  # up to 12 actions all have a line and a label; with more actions, 6 have


def fit_scene(scene: UInt8[np.ndarray, "H W 3"]) -> Image.Image:
    """Resize the picture of an environment to the largest size that fits.

    Large pictures shrink; small ones grow by a whole factor, so that every pixel is a square with sharp edges. A side
    that would be too thin to be seen is drawn thicker.
    """
    image = Image.fromarray(np.ascontiguousarray(scene))
    scale = min(SCENE_WIDTH / image.width, HEIGHT / image.height)
    grows = scale >= 1
    width, height = (
        max(SCENE_THINNEST, round(side * (int(scale) if grows else scale))) for side in (image.width, image.height)
    )
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS)


def label_positions(wanted: Float[np.ndarray, " K"], height: int, top: int, bottom: int) -> Float[np.ndarray, " K"]:
    """Return upper edges of labels that do not overlap, with the smallest sum of squared shifts.

    Args:
        wanted: Preferred upper edges `[K]`, in increasing order; floats.
        height: The height of each label.
        top: The smallest upper edge.
        bottom: The largest upper edge.

    Returns:
        Upper edges `[K]`, float64 with whole values, at least `height` apart.

    Raises:
        ValueError: If the labels do not fit.
    """
    offsets = float(height) * np.arange(len(wanted))
    if len(wanted) and offsets[-1] > bottom - top:
        raise ValueError(f"{len(wanted)} labels of height {height} do not fit between {top} and {bottom}")
    # Without the offsets, positions only have to be non-decreasing. This is isotonic regression: neighbours that are
    # out of order are pooled to their mean.
    pools: list[tuple[float, int]] = []
    for mean in np.asarray(wanted, float) - offsets:
        count = 1
        while pools and pools[-1][0] > mean:
            other, size = pools.pop()
            mean, count = (mean * count + other * size) / (count + size), count + size
        pools.append((float(mean), count))
    pooled = np.repeat([mean for mean, _ in pools], [count for _, count in pools])
    return np.round(np.clip(pooled, top, bottom - offsets[-1:])) + offsets


def shown_actions(values: Float[np.ndarray, " A"], action: int) -> Int[np.ndarray, " K"]:
    """Return the actions that have a line and a label, from the highest value to the lowest.

    Args:
        values: The values `[A]` of all actions, floats without NaN.
        action: The chosen action, which is always shown.

    Returns:
        Actions `[K]` int64: all if there are at most 12, else 6.
    """
    order = np.argsort(-values, kind="stable")
    best = order if len(order) <= ALL_SHOWN else order[:MOST_SHOWN]
    return best if action in best else np.append(best[:-1], action)


def value_text(value: float, largest: float, fits: Callable[[str], bool]) -> str:
    """Return the text of an action's value: 4.36, -0.0123, 12345, 1.23e6.

    Args:
        value: The value.
        largest: The largest magnitude of all values, so that they all have the same number of decimals.
        fits: Whether there is room for a text; if there is not, fewer digits are used.
    """
    exponents = [f"{value:.{digits}g}" for digits in (3, 2, 1)]
    short = [text.replace("e+0", "e").replace("e+", "e").replace("e-0", "e-") for text in exponents]
    if largest == 0 or 0.1 <= largest < 1e3:
        short.insert(0, f"{value:z.2f}")
    elif 1e3 <= largest < 1e6:
        short.insert(0, f"{value:z.0f}")
    return next((text for text in short if fits(text)), short[-1])


def colours_of(actions: Int[np.ndarray, " K"]) -> list[tuple[int, int, int]]:
    """Return a different colour for each action, at most 12; an action keeps its own unless one before it has it."""
    free, taken = list(range(len(COLOURS))), []
    for action in actions:
        own = int(action) % len(COLOURS)
        taken.append(own if own in free else free[0])
        free.remove(taken[-1])
    return [COLOURS[index] for index in taken]


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Join two pictures into one with a palette, a third of the memory; each has a separate part of the palette."""
    first = left.quantize(SCENE_COLOURS, dither=Image.Dither.NONE)
    second = right.quantize(256 - SCENE_COLOURS, dither=Image.Dither.NONE)
    both = Image.fromarray(np.hstack([np.asarray(first), np.asarray(second) + np.uint8(SCENE_COLOURS)]))
    padded = ((first.getpalette() or []) + [0] * 3 * SCENE_COLOURS)[: 3 * SCENE_COLOURS]
    both.putpalette(padded + (second.getpalette() or []))
    return both


class Panel:
    """Draws the pictures of an episode, all of the same size."""

    def __init__(self, names: Sequence[str]) -> None:
        """Lay out the picture.

        Args:
            names: The name of each action; a name that is too wide for a label is replaced by the action's number.
        """
        self._large, self._small = ImageFont.load_default(15), ImageFont.load_default(12)
        self._width_of = self._small.getlength
        self._names = [name if self._width_of(name) <= NAME_WIDTH else str(i) for i, name in enumerate(names)]
        self._value_width = self._width_of("-999.99")
        column = max(map(self._width_of, self._names)) + self._width_of(": <") + self._value_width
        self._width = LABEL_LEFT + int(column) + 6

    def draw(
        self,
        scene: UInt8[np.ndarray, "H W 3"],
        values: Float[np.ndarray, "T A"],
        action: int,
        step: int,
        total: float,
    ) -> Image.Image:
        """Draw the environment, and the values of actions over the last steps.

        Args:
            scene: The picture of the environment, `[H, W, 3]` uint8.
            values: The action values `[T, A]`, floats, the newest last.
            action: The chosen action.
            step: Steps so far.
            total: The return so far.

        Returns:
            A picture in at most 256 colours, as GIF holds them.
        """
        image = fit_scene(scene)
        left = Image.new("RGB", (SCENE_WIDTH, HEIGHT), PAPER)
        left.paste(image, ((SCENE_WIDTH - image.width) // 2, (HEIGHT - image.height) // 2))
        right = Image.new("RGB", (self._width, HEIGHT), PAPER)
        draw = ImageDraw.Draw(right)
        draw.text((LEFT, 12), f"step {step}   return {total:g}", fill=INK, font=self._large)
        self._draw_values(draw, values[-STEPS:], action)
        return _side_by_side(left, right)

    def _draw_values(self, draw: ImageDraw.ImageDraw, recent: Float[np.ndarray, "T A"], action: int) -> None:
        steps, num_actions = recent.shape
        finite = np.nan_to_num(recent.astype(np.float64), nan=0.0, posinf=1e300, neginf=-1e300)
        low, high = float(finite.min()), float(finite.max())
        largest = max(-low, high)
        # Values that are equal up to rounding are drawn as a line in the middle.
        middle, half = (low + high) / 2, 1.1 * max((high - low) / 2, 1e-5 * largest, 1e-300)
        y = BOTTOM - ((finite - middle) / half + 1) / 2 * (BOTTOM - TOP)
        x = RIGHT - np.arange(steps - 1, -1, -1) * (RIGHT - LEFT) / (STEPS - 1)
        if steps == 1:  # a short line, because a single point would not be seen
            x, y = np.array([RIGHT - 2.0, RIGHT]), np.repeat(y, 2, axis=0)
        shown = shown_actions(finite[-1], action)
        title, caption = "action values", f"last {steps} step{'s' if steps > 1 else ''}"
        if len(shown) < num_actions:
            others = np.delete(y, shown, axis=1)
            edges = np.stack([np.stack([x, others.min(axis=1)], 1), np.stack([x, others.max(axis=1)], 1)[::-1]])
            draw.polygon(edges.ravel().tolist(), fill=BAND)
            title = f"values of the {len(shown)} best of {num_actions:,} actions"
            caption += f"; grey: the other {num_actions - len(shown):,}"
        draw.line((LEFT, BOTTOM, RIGHT, BOTTOM), fill=FAINT)
        draw.text((LEFT, 38), title, fill=INK, font=self._small)
        draw.text((LEFT, BOTTOM + 6), caption, fill=INK, font=self._small)
        label_tops = label_positions(y[-1, shown] - LABEL_HEIGHT / 2, LABEL_HEIGHT, LABEL_TOP, LABEL_BOTTOM)
        fits: Callable[[str], bool] = lambda text: self._width_of(text) <= self._value_width  # noqa: E731
        # Draw the best action last, on top of the others.
        for index, colour, top in reversed(list(zip(shown, colours_of(shown), label_tops, strict=True))):
            draw.line(np.stack([x, y[:, index]], 1).ravel().tolist(), fill=colour, width=2)
            end, beside = float(y[-1, index]), float(top) + LABEL_HEIGHT / 2
            draw.ellipse((RIGHT - 2, end - 2, RIGHT + 2, end + 2), fill=colour)
            if abs(end - beside) > 3:  # the label was shifted: connect it to its line
                draw.line((RIGHT + 2, end, LABEL_LEFT - 3, beside), fill=colour)
            mark = "<" if index == action else ""
            text = f"{self._names[index]}: {value_text(float(recent[-1, index]), largest, fits)}{mark}"
            draw.text((LABEL_LEFT, float(top)), text, fill=colour, font=self._small)
