"""Frames against independent computations of the definition; stacks and statistics against hand-computed numbers."""

import subprocess
import sys

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdqn.envs.gymnasium.wrappers  # noqa: F401  sets SDL_VIDEODRIVER before pygame is imported
from jaxdqn.preprocessing import (
    ObservationStats,
    grey_and_resize,
    normalise,
    observation_stats,
    preprocess_frame,
    push_frame,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")

both = pytest.mark.parametrize("asarray", [np.asarray, jnp.asarray], ids=["numpy", "jax"])


def random_frame(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cartpole_frame():
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    env.close()
    return frame


def definition(frame, size):
    """Make a frame grey on the scale 0 to 1, then resize each axis by the triangle filter as a matrix, in float64."""
    grey = frame.astype(np.float64) / 255 @ [0.2989, 0.587, 0.114]
    for new in size:
        old = len(grey)
        scale = old / new
        distance = np.abs(np.arange(old) + 0.5 - (np.arange(new)[:, None] + 0.5) * scale)
        weights = np.maximum(0.0, 1.0 - distance / max(scale, 1.0))
        grey = (weights / weights.sum(axis=1, keepdims=True) @ grey).T
    return grey


def triangle_resize(grey, size):
    """Compute each output pixel as the normalised sum of input pixels below a triangle, in loops and float64."""
    scales = [old / new for old, new in zip(grey.shape, size, strict=True)]
    out = np.zeros(size)
    for y, x in np.ndindex(*size):
        total = 0.0
        for i, j in np.ndindex(*grey.shape):
            weight = 1.0
            for pixel, centre, scale in ((i, (y + 0.5) * scales[0], scales[0]), (j, (x + 0.5) * scales[1], scales[1])):
                weight *= max(0.0, 1.0 - abs(pixel + 0.5 - centre) / max(scale, 1.0))
            out[y, x] += weight * grey[i, j]
            total += weight
        out[y, x] /= total
    return out


@both
@pytest.mark.parametrize("make_frame", [lambda: random_frame(400, 600), cartpole_frame], ids=["random", "cartpole"])
def test_a_large_frame_is_within_1e_5_of_the_definition(make_frame, asarray):
    frame = make_frame()
    assert frame.shape == (400, 600, 3)
    result = np.asarray(grey_and_resize(asarray(frame), (64, 64))) / 255
    assert result.std() > 0.01  # not a blank picture, for which any filter is right
    np.testing.assert_allclose(result, definition(frame, (64, 64)), rtol=0, atol=1e-5)


@both
@pytest.mark.parametrize("size", [(3, 4), (7, 9), (11, 13), (17, 5)], ids=str)
def test_shrinking_and_enlarging_match_the_triangle_filter_in_loops(size, asarray):
    frame = random_frame(7, 9)
    expected = triangle_resize(frame.astype(np.float64) @ [0.2989, 0.587, 0.114], size)
    np.testing.assert_allclose(np.asarray(grey_and_resize(asarray(frame), size)), expected, rtol=0, atol=255e-5)


def test_numpy_and_jax_frames_give_the_same_bytes():
    frame, size = random_frame(400, 600, seed=1), (8, 8)
    # Both sum in float32, in another order: only a pixel next to a rounding limit could differ. There is none here.
    assert np.abs(definition(frame, size) * 255 % 1 - 0.5).min() > 1e-3
    expected = preprocess_frame(frame, size)
    eager = preprocess_frame(jnp.asarray(frame), size)
    jitted = jax.jit(preprocess_frame, static_argnums=1)(jnp.asarray(frame), size)
    assert isinstance(expected, np.ndarray)
    assert expected.dtype == np.uint8
    for result in (eager, jitted):
        assert isinstance(result, jax.Array)
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, expected)


@both
def test_values_are_rounded_to_the_nearest_byte(asarray):
    two = asarray(np.array([[[10], [11]]], np.uint8))
    # Two pixels enlarged to ten: 10, 10, 10, 10.2, 10.4 and 10.6, 10.8, 11, 11, 11. To five: 10, 10.1, 10.5, 10.9, 11.
    np.testing.assert_array_equal(preprocess_frame(two, (1, 10)), [[10] * 5 + [11] * 5])
    np.testing.assert_array_equal(preprocess_frame(two, (1, 5)), [[10, 10, 11, 11, 11]])


@both
@pytest.mark.parametrize("size", [(64, 64), (500, 700)], ids=str)
def test_white_stays_255_although_the_weights_sum_to_0_9999_and_black_stays_0(size, asarray):
    white = asarray(np.full((400, 600, 3), 255, np.uint8))
    assert (np.asarray(preprocess_frame(white, size)) == 255).all()
    assert (np.asarray(preprocess_frame(white * 0, size)) == 0).all()


@both
@pytest.mark.parametrize("channels", [(), (1,)], ids=["no channel axis", "one channel"])
def test_grey_frames_are_resized_without_conversion(channels, asarray):
    grey = random_frame(6, 8)[..., 0]
    result = grey_and_resize(asarray(grey.reshape(6, 8, *channels)), (3, 4))
    np.testing.assert_allclose(result, triangle_resize(grey.astype(np.float64), (3, 4)), rtol=0, atol=255e-5)


@pytest.mark.parametrize(("shape", "size"), [((4, 4, 3), (0, 4)), ((4, 4, 3), (4, -1)), ((0, 4, 3), (4, 4))])
def test_a_size_below_1_is_refused(shape, size):
    with pytest.raises(ValueError, match="both sizes must be at least 1"):
        preprocess_frame(np.zeros(shape, np.uint8), size)


@both
def test_the_newest_frame_is_last_and_a_first_frame_fills_the_stacks_of_its_environment_only(asarray):
    stack = asarray(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8).reshape(3, 1, 1, 3))
    frame = asarray(np.array([10, 20, 30], np.uint8).reshape(3, 1, 1))
    pushed = push_frame(stack, frame, asarray(np.array([False, True, False])))
    assert isinstance(pushed, type(stack))
    assert pushed.dtype == np.uint8
    np.testing.assert_array_equal(np.asarray(pushed).reshape(3, 3), [[2, 3, 10], [20, 20, 20], [8, 9, 30]])


def test_push_frame_does_not_change_the_old_stack():
    stack = np.arange(8, dtype=np.uint8).reshape(1, 2, 2, 2)
    before = stack.copy()
    pushed = push_frame(stack, np.full((1, 2, 2), 99, np.uint8), np.array([False]))
    assert pushed[..., -1].tolist() == [[[99, 99], [99, 99]]]
    np.testing.assert_array_equal(stack, before)


def test_statistics_are_those_computed_by_hand():
    # Channel 0 over 255: 0, 0.2, 0.4, 0.6: mean 0.3, squared deviations 0.09 + 0.01 + 0.01 + 0.09 = 0.2, over 3.
    # Channel 1 over 255: 1, 0.8, 1, 0.8: mean 0.9, squared deviations 4 * 0.01, over 3.
    obs = np.array([0, 255, 51, 204, 102, 255, 153, 204], np.uint8).reshape(2, 1, 2, 2)
    stats = observation_stats(obs)
    np.testing.assert_allclose(stats.mean, [0.3, 0.9], rtol=1e-6)
    np.testing.assert_allclose(stats.std, [(0.2 / 3) ** 0.5, (0.04 / 3) ** 0.5], rtol=1e-6)
    assert stats.mean.dtype == stats.std.dtype == np.float32


def test_a_channel_that_never_changes_has_deviation_1e_6():
    stats = observation_stats(np.full((2, 2, 2, 1), 51, np.uint8))
    np.testing.assert_allclose(stats.mean, [0.2], rtol=1e-6)
    np.testing.assert_array_equal(stats.std, np.array([1e-6], np.float32))


def test_statistics_of_one_value_per_channel_are_refused():
    with pytest.raises(ValueError, match="at least 2 values per channel, got 1"):
        observation_stats(np.zeros((1, 1, 1, 4), np.uint8))


def test_bytes_are_divided_by_255_before_they_are_normalised_and_floats_are_not():
    stats = ObservationStats(np.array([0.2, 0.5], np.float32), np.array([0.5, 0.1], np.float32))
    expected = [[0.0, 5.0], [0.4, -1.0]]  # (0.2 - 0.2) / 0.5, (1 - 0.5) / 0.1; (0.4 - 0.2) / 0.5, (0.4 - 0.5) / 0.1
    pixels = normalise(jnp.array([[51, 255], [102, 102]], jnp.uint8), stats)
    vectors = normalise(jnp.array([[0.2, 1.0], [0.4, 0.4]], jnp.float32), stats)
    assert pixels.dtype == vectors.dtype == np.float32
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)


def test_a_process_that_only_steps_environments_does_not_import_jax():
    code = "import jaxdqn.preprocessing, jaxdqn.envs.vector.episodes, sys; assert 'jax' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
