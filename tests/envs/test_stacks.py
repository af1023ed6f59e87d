"""Pictures from `render()` become bytes or are refused; stacks of all image types match a brute-force model."""

import contextlib

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_envs import GivenObs, RandomObs, box

from jaxdqn.envs.gymnasium.building import make_env_fn
from jaxdqn.envs.gymnasium.spaces import picture_bytes
from jaxdqn.observations import ObsSpec, apply_rule, image_rule
from jaxdqn.preprocessing import join_frames, next_stack, push_frame

RGB = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (RGB, RGB),
        (RGB[..., 0], RGB[..., 0]),
        (RGB[..., :1], RGB[..., :1]),
        ((RGB / 255).astype(np.float32), RGB),
        (RGB / 255.0, RGB),
        (RGB.astype(np.int64), RGB),
        (RGB > 127, (RGB > 127) * np.uint8(255)),
        (np.concatenate([RGB, np.full((30, 20, 1), 255, np.uint8)], axis=2), RGB),
        (np.concatenate([RGB, np.zeros((30, 20, 1), np.uint8)], axis=2), np.zeros_like(RGB)),
    ],
    ids=["RGB", "grey", "one channel", "float32", "float64", "int64", "bool", "RGBA, opaque", "RGBA, transparent"],
)
def test_pictures_of_all_types_become_bytes(picture, expected):
    np.testing.assert_array_equal(picture_bytes(picture, "it"), expected)


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (None, "render.. returns None; make it with render_mode"),
        (RGB * 1.0, "draws floats outside "),
        (RGB * np.nan, "draws floats outside "),
        (RGB.astype(int) * 3, "draws int64 that are not bytes"),
        ([RGB, RGB], r"no picture: render\(\) returns uint8 of shape \(2, 30, 20, 3\)"),
        (RGB[..., :2], r"no picture: render\(\) returns uint8 of shape \(30, 20, 2\)"),
        ([RGB, RGB[:3]], "no picture"),
        ("a drawing", "no picture"),
    ],
    ids=["None", "floats to 255", "NaN", "more than bytes", "a list", "two channels", "ragged", "text"],
)
def test_a_result_of_render_that_is_not_a_picture_is_refused(picture, says):
    with pytest.raises(ValueError, match=says) as refused:
        picture_bytes(picture, "it")
    assert "\n" not in str(refused.value)


def test_pictures_that_change_size_are_resized_each_time():
    sizes = iter([(30, 20), (60, 90), (10, 10)])

    def picture():
        return np.full((*next(sizes), 3), 90, np.uint8)

    space = gym.spaces.Box(-1, 1, (2,), np.float32)
    env = make_env_fn("", pixels=True, env_fn=lambda: RandomObs(space, "rgb_array", picture))()
    frames = [env.reset(seed=0)[0], env.step(0)[0], env.step(0)[0]]
    assert {frame.shape for frame in frames} == {(64, 64)}
    assert {int(value) for frame in frames for value in np.unique(frame)} == {90}


@given(st.integers(1, 5), st.sampled_from([(), (3,), (4, 5), (4, 5, 3)]), st.integers(0, 2**31))
def test_pushed_stacks_and_joined_stacks_are_the_same(stack, shape, seed):
    """Compare with a brute-force model: the newest frames of each environment, filled up with the episode's first."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (7, 2, *shape), dtype=np.uint8)
    first = rng.random((7, 2)) < 0.3
    first[0] = True
    pushed = next_stack(None, frames[0], first[0], stack)
    started = np.zeros(2, int)
    for t in range(7):
        pushed = pushed if t == 0 else push_frame(pushed, frames[t], first[t])
        started = np.where(first[t], t, started)
        for env in range(2):
            steps = [max(t - back, started[env]) for back in range(stack - 1, -1, -1)]
            window = np.stack([frames[step, env] for step in steps])
            np.testing.assert_array_equal(join_frames(window, len(shape)), pushed[env])
            if len(shape) == 3:  # frame after frame along the channels
                np.testing.assert_array_equal(np.concatenate(list(window), axis=-1), pushed[env])
            else:
                np.testing.assert_array_equal(np.stack(list(window), axis=-1), pushed[env])
        assert pushed.shape[1:] == ObsSpec(shape, np.uint8, stack).seen_shape


@pytest.mark.parametrize("shape", [(40, 50, 3), (3, 40, 50), (40, 50), (10, 10, 4), (4, 10, 10)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.bool_])
def test_an_image_rule_gives_the_same_with_jax_and_numpy(shape, dtype):
    image = np.random.default_rng(0).random(shape)
    image = (image * 255).astype(np.uint8) if dtype == np.uint8 else image > 0.5 if dtype == np.bool_ else image
    image = image.astype(dtype)
    rule = image_rule(shape, dtype, 255.0, frame_size=16)
    ours, theirs = apply_rule(rule, image), apply_rule(rule, jnp.asarray(image))
    assert ours.dtype == theirs.dtype == rule.spec(shape, dtype).dtype
    assert ours.shape == theirs.shape == rule.spec(shape, dtype).shape
    assert np.abs(ours.astype(np.float64) - np.asarray(theirs, np.float64)).max() <= (1 if rule.resized else 0)


def test_a_float_image_with_nan_is_refused_before_it_becomes_bytes():
    nan = np.full((40, 40), np.nan, np.float32)
    with (
        contextlib.closing(
            make_env_fn("", env_fn=lambda: GivenObs(box((40, 40), np.float32), picture=lambda: nan))()
        ) as env,
        pytest.raises(FloatingPointError, match="an observation of env GivenObs is nan"),
    ):
        env.reset(seed=0)
