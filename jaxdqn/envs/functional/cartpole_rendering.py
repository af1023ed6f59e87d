"""The picture of CartPole-v1 in JAX: what pygame draws, grey and resized at once, or in colour.

Gymnasium draws 400 by 600 pixels: a black cart, a pole over it, an axle over both, and the track over all. In each row
each of them is one interval of pixels, and resizing is a weighted sum over columns and then over rows. So the grey
frame is computed from the ends of intervals, by the integral of the columns' weights, and a product with the rows'
weights; no large picture is ever made.

Corners are cut to whole pixels and rows filled from rounded ends, as SDL_gfx does it. What is not followed is the
shading of the pole's two short ends, a few grey levels here and there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from jaxdqn.preprocessing import GREY_WEIGHTS

HEIGHT, WIDTH = 400, 600
SCALE = 125.0  # pixels a metre: 4.8 m of track are the width
TRACK = 100  # its row, counted from the bottom, which is how gymnasium draws before it turns the picture over
CART = (25.0, 15)  # half its width and its height
POLE_ENDS = (5.0, -5.0, 120.0)  # half its width; its ends, from the axle
AXLE_HEIGHT = 107.5
AXLE_HALF_WIDTHS = (
    1.994,
    3.5,
    4.5,
    5.5,
    5.5,
    5.5,
    5.5,
    5.5,
    4.5,
    3.5,
    1.994,
)  # of its eleven rows, shaded ends included
WHITE, BLACK, POLE, AXLE = COLOURS = np.array(
    [[255, 255, 255], [0, 0, 0], [202, 152, 101], [129, 132, 203]], np.float32
)

_CART_ROWS = np.arange(TRACK - CART[1], TRACK + CART[1] + 1)
_ROWS = np.arange(TRACK + 1, 234)  # of pole and axle: 108 + 125 is as high as the pole's corners come
_AXLE = slice(102 - _ROWS[0], 113 - _ROWS[0])


class Intervals(NamedTuple):
    """Where a row of the picture is covered: from `left` to `right` in pixels; nowhere if `left >= right`.

    Attributes:
        left: `[R]` float32.
        right: `[R]` float32.
    """

    left: Float[Array, " R"]
    right: Float[Array, " R"]


class Weights(NamedTuple):
    """How rows of the picture become rows of the frame: the filter of `preprocess_frame`.

    Attributes:
        first: First row of the frame that is not all white.
        rows: Weights of the rows in `_ROWS` `[M, R]`, of the frame's `M` rows that are not all white.
        cart: Weight of all rows of the cart, the track's aside `[M]`.
        track: Weight of the track's row `[M]`.
    """

    first: int
    rows: np.ndarray
    cart: np.ndarray
    track: np.ndarray


@lru_cache
def _weights(size: int) -> Weights:
    eye = Image.fromarray(np.eye(HEIGHT, dtype=np.float32))
    rows = np.asarray(eye.resize((HEIGHT, size), Image.Resampling.BILINEAR))[:, ::-1]  # gymnasium turns rows over
    drawn = np.flatnonzero(rows[:, _CART_ROWS[0] : _ROWS[-1] + 1].any(axis=1))
    rows = rows[drawn[0] : drawn[-1] + 1]
    cart = rows[:, _CART_ROWS[_CART_ROWS != TRACK]].sum(axis=1)  # the track is drawn last
    return Weights(int(drawn[0]), rows[:, _ROWS], cart, rows[:, TRACK])


def _sums_before(column: Float[Array, " N"], size: int) -> Float[Array, "N size"]:
    """Weight that each column of the frame gives to all that is left of a place in the picture.

    The weights are a triangle two columns of the frame wide, cut at the picture's sides and scaled to 1 in all. Its
    integral is taken, and not the sum over whole pixels: the difference is below a third of a grey level.
    """
    reach = WIDTH / size
    middle = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(reach)

    def integral(place: Any) -> Any:
        u = ((place - middle) / np.float32(reach)).clip(-1.0, 1.0)
        return u - 0.5 * u * abs(u)

    whole = integral(np.float32(WIDTH)) - integral(np.float32(0))
    return integral(jnp.clip(column, 0.0, float(WIDTH))[:, None]) / whole


def cartpole_frame(x: Float[Array, ""], theta: Float[Array, ""], size: int = 64) -> UInt8[Array, "size size"]:
    """The frame that `preprocess_frame` makes of gymnasium's picture.

    Over 10,000 random states within CartPole's bounds it is pygame's to 0.004 grey levels of 255 in the mean, and to 1
    in 99.9 % of pixels; at sizes from 16 to 256 to 0.01 in the mean, and to 2 in 99.9 %. Where a corner is a rounding
    away from the next pixel, the cart's sides are off by up to 26: gymnasium computes that in float64.

    Args:
        x: Position of the cart in metres.
        theta: Angle of the pole in radians, to the right above 0, at most a quarter of a turn.
        size: Side of the frame, at most `HEIGHT`.

    Raises:
        ValueError: If the frame would be larger than the picture.
    """
    if size > HEIGHT:
        raise ValueError(f"frame_size {size} must be at most {HEIGHT}, the height of CartPole's picture")
    weights = _weights(size)
    white, black, pole_grey, axle_grey = (float(np.dot(colour, GREY_WEIGHTS)) for colour in COLOURS)

    def covered(shape: Intervals) -> tuple[Float[Array, "N size"], Float[Array, "N size"]]:
        return _sums_before(shape.left, size), _sums_before(jnp.maximum(shape.left, shape.right), size)

    pole_left, pole_right = covered(_pole(x, theta))
    axle_left, axle_right = covered(_axle(x))
    cart_left, cart_right = covered(_cart(x))
    under = np.where(_CART_ROWS[-1] >= _ROWS, black, white)[:, None]
    of_pole = (pole_grey - under) * (pole_right - pole_left)
    # Where the axle is, it hides pole and cart.
    hidden = jnp.minimum(pole_right[_AXLE], axle_right) - jnp.maximum(pole_left[_AXLE], axle_left)
    of_axle = (axle_grey - black) * (axle_right - axle_left) - (pole_grey - black) * jnp.maximum(hidden, 0.0)
    of_cart = weights.cart[:, None] * (black - white) * (cart_right - cart_left)
    of_track = weights.track[:, None] * (black - white)
    changes = jnp.asarray(of_pole).at[_AXLE].add(of_axle)
    with jax.default_matmul_precision("highest"):  # TF32 on a GPU would be off by a grey level here and there
        grey = white + of_cart + of_track + weights.rows @ changes
    drawn = (grey + 0.5).clip(0, 255).astype(jnp.uint8)
    return jnp.full((size, size), 255, jnp.uint8).at[weights.first : weights.first + len(weights.rows)].set(drawn)


def cartpole_picture(x: Float[Array, ""], theta: Float[Array, ""]) -> UInt8[Array, "400 600 3"]:
    """Gymnasium's picture in colour.

    Args:
        x: Position of the cart in metres.
        theta: Angle of the pole in radians.
    """

    def coverage(shape: Intervals, first: int) -> Float[Array, "400 600"]:
        pixel = jnp.arange(WIDTH)
        ends = jnp.minimum(shape.right[:, None], pixel + 1.0) - jnp.maximum(shape.left[:, None], pixel)
        return jnp.zeros((HEIGHT, WIDTH)).at[first : first + ends.shape[0]].set(jnp.clip(ends, 0.0, 1.0))

    track = jnp.zeros((HEIGHT, WIDTH)).at[TRACK].set(1.0)
    cart = jax.tree.map(lambda end: jnp.broadcast_to(end, _CART_ROWS.shape), _cart(x))
    layers = [
        (coverage(cart, int(_CART_ROWS[0])), BLACK),
        (coverage(_pole(x, theta), int(_ROWS[0])), POLE),
        (coverage(_axle(x), int(_ROWS[_AXLE][0])), AXLE),
        (track, BLACK),
    ]
    picture = jnp.broadcast_to(WHITE, (HEIGHT, WIDTH, 3))
    for shade, colour in layers:
        picture += shade[..., None] * (colour - picture)
    return (picture[::-1] + 0.5).astype(jnp.uint8)


def _column(x: Float[Array, ""]) -> Float[Array, ""]:
    """The cart's middle."""
    return x * SCALE + WIDTH / 2


def _cart(x: Float[Array, ""]) -> Intervals:
    """The same in each of its rows."""
    return Intervals(jnp.trunc(_column(x) - CART[0])[None], jnp.trunc(_column(x) + CART[0])[None] + 1)


def _axle(x: Float[Array, ""]) -> Intervals:
    middle, half = jnp.trunc(_column(x)) + 0.5, jnp.asarray(AXLE_HALF_WIDTHS)
    return Intervals(middle - half, middle + half)


def _pole(x: Float[Array, ""], theta: Float[Array, ""]) -> Intervals:
    """The pole's rows: between the leftmost and the rightmost of the edges that cross a row."""
    half, low, high = POLE_ENDS
    corners = jnp.array([(-half, low), (-half, high), (half, high), (half, low)])
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    turned = jnp.stack([corners[:, 0] * cos + corners[:, 1] * sin, corners[:, 1] * cos - corners[:, 0] * sin], axis=-1)
    corners = jnp.trunc(turned + jnp.stack([_column(x), jnp.float32(AXLE_HEIGHT)]))
    following = jnp.roll(corners, -1, axis=0)
    upwards = (following[:, 1] >= corners[:, 1])[:, None]
    start, end = jnp.where(upwards, corners, following), jnp.where(upwards, following, corners)
    rise = jnp.maximum(end[:, 1] - start[:, 1], 1.0)
    steep = jnp.abs(end[:, 0] - start[:, 0]) <= rise
    row = jnp.asarray(_ROWS, jnp.float32)[:, None]
    top = corners[:, 1].max()
    crosses = (row >= start[:, 1]) & ((row < end[:, 1]) | ((row == top) & (row == end[:, 1]) & (row > start[:, 1])))
    place = start[:, 0] + (row - start[:, 1]) * (end[:, 0] - start[:, 0]) / rise
    whole = jnp.floor(place)
    past_half = place - whole >= 0.5
    # Filled from the rounded left end to the rounded right one, both included. Of steep edges the pixel on either side
    # of the place is shaded besides, by how near it is: where it is not filled, it lengthens the interval by a part.
    left = jnp.where(past_half, jnp.where(steep, place, whole + 1), whole)
    right = jnp.where(past_half, whole + 2, whole + 1 + jnp.where(steep, place - whole, 0.0))
    nowhere = float(WIDTH)
    return Intervals(
        jnp.where(crosses, left, nowhere).min(axis=1),
        jnp.where(crosses, right, 0.0).max(axis=1),
    )
