"""The agent sees what the environment gave, or one line refuses it: images of all kinds, vectors, pictures."""

import contextlib

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.wrappers import FrameStackObservation
from hypothesis import given
from hypothesis import strategies as st
from image_envs import Shown, box

from jaxdqn.envs.pixels import PixelObservation, make_env_fn, spec_of_env
from jaxdqn.envs.spaces import is_image, picture_bytes
from jaxdqn.observations import ObsSpec, apply_rule, image_rule
from jaxdqn.preprocessing import join_frames, next_stack, preprocess_frame, push_frame

BYTES, FLOATS = np.dtype(np.uint8), np.dtype(np.float32)


def build(space, pixels=True, **options):
    """One environment of a space that can also draw itself, as the agent sees it."""
    return make_env_fn("", pixels=pixels, env_fn=lambda: Shown(space, render_mode="rgb_array"), **options)()


# A space, and what replay holds of it: shape, dtype, stack, and what bytes are divided by.
AS_THEY_ARE = [
    (box((10, 10, 4), np.bool_), ObsSpec((10, 10, 4), BYTES, 1, 1.0)),  # MinAtar's authors
    (box((10, 10, 4), np.uint8, high=1), ObsSpec((10, 10, 4), BYTES, 1, 1.0)),
    (box((10, 10)), ObsSpec((10, 10), BYTES, 1, 255.0)),
    (box((7, 7, 3), high=10), ObsSpec((7, 7, 3), BYTES, 1, 10.0)),  # MiniGrid's
    (box((32, 32, 3)), ObsSpec((32, 32, 3), BYTES, 1, 255.0)),
    (box((84, 84, 4)), ObsSpec((84, 84, 4), BYTES, 1, 255.0)),
    (box((4, 84, 84)), ObsSpec((84, 84, 4), BYTES, 1, 255.0)),  # FrameStackObservation of AtariPreprocessing
    (box((84, 84, 4), np.float32), ObsSpec((84, 84, 4), FLOATS, 1, 1.0)),
    (box((4, 10, 12), np.float32), ObsSpec((10, 12, 4), FLOATS, 1, 1.0)),
    (box((3, 3, 3)), ObsSpec((3, 3, 3), BYTES, 1, 255.0)),
    (box((60, 80, 2)), ObsSpec((60, 80, 2), BYTES, 1, 255.0)),
    (box((64, 64)), ObsSpec((64, 64), BYTES, 4, 255.0)),  # grey, and of the wanted size: nothing is left to do
]
RESIZED = [
    box((210, 160, 3)),
    box((3, 96, 96)),
    box((96, 96)),
    box((96, 96, 1)),
    box((1, 84, 84)),
    box((33, 20, 3)),
    box((84, 84), np.float32),  # AtariPreprocessing(scale_obs=True)
    box((40, 50, 3), np.float32),
    box((64, 64), np.bool_),
    box((48, 48), np.uint8, high=3),
]


@pytest.mark.parametrize(("space", "spec"), AS_THEY_ARE, ids=lambda case: str(case)[:40])
def test_small_images_and_those_of_other_channels_are_taken_as_they_are(space, spec):
    with contextlib.closing(build(space)) as env:
        assert spec_of_env(env) == spec
        assert spec_of_env(env, 3).stack == 3
        for play in (lambda: env.reset(seed=0)[0], lambda: env.step(1)[0]):
            obs, inner = play(), env.unwrapped.newest
            inner = np.moveaxis(inner, 0, -1) if inner.shape != spec.shape else inner
            assert obs.dtype == spec.dtype
            np.testing.assert_array_equal(obs, inner)
            assert env.observation_space.contains(obs)
        assert env.unwrapped.drawn == 0


@pytest.mark.parametrize("space", RESIZED, ids=str)
@pytest.mark.parametrize("colour", [False, True])
def test_other_images_are_made_grey_and_resized_unless_colour_is_asked_for(space, colour):
    with contextlib.closing(build(space, colour=colour)) as env:
        obs, _ = env.reset(seed=0)
        seen = env.unwrapped.newest.astype(np.float64) * (255 / float(np.max(space.high)))
        seen = np.moveaxis(seen, 0, -1) if seen.ndim == 3 and seen.shape[0] <= 3 else seen
        kept = colour and seen.shape[2:] == (3,)
        assert spec_of_env(env) == ObsSpec((64, 64, 3) if kept else (64, 64), BYTES, 4, 255.0)
        assert obs.shape == spec_of_env(env).shape
        planes = [seen[..., i] for i in range(3)] if kept else [seen]
        for plane, mine in zip(planes, np.moveaxis(obs, -1, 0) if kept else [obs], strict=True):
            expected = preprocess_frame(jnp.asarray(plane, jnp.float32))  # by JAX, where the environment's is Pillow's
            assert np.abs(mine.astype(int) - np.asarray(expected, int)).max() <= 1
        assert obs.std() > 0
        assert env.unwrapped.drawn == 0


def test_image_observations_are_never_replaced_by_a_picture():
    for space in (*RESIZED, *(space for space, _ in AS_THEY_ARE)):
        for pixels in (True, None):
            with contextlib.closing(build(space, pixels)) as env:
                env.reset(seed=0)
                env.step(0)
                assert isinstance(env, PixelObservation)
                assert env.unwrapped.drawn == 0


@pytest.mark.parametrize("scale", [False, True])
def test_frames_that_gymnasium_stacks_channels_first_are_used(scale):
    inner = Shown(box((84, 84), np.float32 if scale else np.uint8))
    with contextlib.closing(make_env_fn("", env_fn=lambda: FrameStackObservation(inner, 4))()) as env:
        obs, _ = env.reset(seed=0)
        assert spec_of_env(env).shape == obs.shape == (84, 84, 4)
        np.testing.assert_array_equal(obs[..., -1], inner.newest)


REFUSED = [
    (box((40, 40, 3), np.float32, low=-1, high=1), True, "images are bytes, truth values, or floats with bounds in"),
    (box((40, 40, 3), np.float32, low=-1, high=1), None, "images are bytes, truth values, or floats with bounds in"),
    (box((84, 84), np.float32, high=255), True, "images are bytes, truth values, or floats with bounds in"),
    (gym.spaces.Box(0, 255, (64, 64, 3), np.int64), True, "images are bytes, truth values, or floats with bounds in"),
    (gym.spaces.Box(0, 1, (2, 4, 64, 64), np.float32), None, "neither images nor|images are"),
    (box((0, 4)), None, "nothing in them to learn from"),
    (gym.spaces.Discrete(16), None, "FlattenObservation"),
    (gym.spaces.Dict(image=box((8, 8, 3))), None, "FlattenObservation"),
    (gym.spaces.Discrete(16), False, "--no-pixels needs a Box of numbers"),
]


@pytest.mark.parametrize(("space", "pixels", "says"), REFUSED, ids=lambda case: str(case)[:30])
def test_what_is_neither_an_image_nor_a_vector_is_refused_in_one_line(space, pixels, says):
    with pytest.raises(ValueError, match=says) as refused:
        build(space, pixels)
    assert "\n" not in str(refused.value)


def test_what_is_no_image_is_drawn_only_if_pixels_are_asked_for():
    space = gym.spaces.Box(-1, 1, (6,), np.float32)
    with contextlib.closing(build(space, None)) as env:
        obs, _ = env.reset(seed=0)
        np.testing.assert_array_equal(obs, env.unwrapped.newest)
        assert spec_of_env(env) == ObsSpec((6,), FLOATS, None, 1.0)
    with contextlib.closing(build(space, True)) as env:
        obs, _ = env.reset(seed=0)
        assert env.unwrapped.drawn == 1
        assert np.unique(obs).tolist() == [200]
        assert spec_of_env(env) == ObsSpec((64, 64), BYTES, 4, 255.0)
    with contextlib.closing(build(space, True, colour=True)) as env:
        assert spec_of_env(env).shape == env.reset(seed=0)[0].shape == (64, 64, 3)
    with pytest.raises(ValueError, match="colour True needs images"):
        build(space, None, colour=True)


def vectors():
    """Spaces of vectors, and what replay holds of them."""
    return [
        (box((128,)), ObsSpec((128,), BYTES, None, 255.0)),  # Atari's RAM
        (box((5,), np.uint8, high=1), ObsSpec((5,), BYTES, None, 1.0)),
        (box((5,), np.bool_), ObsSpec((5,), BYTES, None, 1.0)),
        (gym.spaces.Box(-3, 3, (4,), np.int64), ObsSpec((4,), FLOATS, None, 1.0)),
        (gym.spaces.Box(-3, 3, (), np.float64), ObsSpec((), FLOATS, None, 1.0)),
        (gym.spaces.Box(-3, 3, (4, 6), np.float64), ObsSpec((4, 6), FLOATS, None, 1.0)),
    ]


@pytest.mark.parametrize(("space", "spec"), vectors(), ids=lambda case: str(case)[:30])
def test_vectors_of_all_dtypes_are_held_as_they_are(space, spec):
    with contextlib.closing(build(space, None)) as env:
        assert spec_of_env(env) == spec
        np.testing.assert_array_equal(env.reset(seed=1)[0], env.unwrapped.newest)
        assert np.can_cast(env.observation_space.dtype, spec.dtype, "same_kind")


class Lying(Shown):
    """Gives what its space does not say."""

    def observe(self):
        return self.picture()


@pytest.mark.parametrize(
    ("space", "gives", "says"),
    [
        (box((8, 8)), lambda: np.full((8, 9), 1, np.uint8), r"shape \(8, 9\) where its space says \(8, 8\)"),
        (
            box((4,)),
            lambda: np.array([0.5, 0, 0, 0]),
            "float64 observations whose values its space's uint8 cannot hold",
        ),
        (box((4,)), lambda: np.array([256, 0, 0, 0]), "int64 observations whose values its space's uint8 cannot hold"),
        (box((4,), np.float32), lambda: "nothing", "shape|no array of numbers"),
        (box((40, 40), np.float32), lambda: np.full((40, 40), 255.0, np.float32), r"values from 255 to 255, not in"),
    ],
    ids=["shape", "fractions", "too large", "words", "not in [0, 1]"],
)
def test_observations_that_their_space_does_not_allow_are_refused(space, gives, says):
    with contextlib.closing(make_env_fn("", pixels=None, env_fn=lambda: Lying(space, picture=gives))()) as env:
        with pytest.raises(ValueError, match=says) as refused:
            env.reset(seed=0)
        assert "\n" not in str(refused.value)


def test_a_float_image_that_is_nan_does_not_become_a_byte():
    nan = np.full((40, 40), np.nan, np.float32)
    with (
        contextlib.closing(
            make_env_fn("", env_fn=lambda: Lying(box((40, 40), np.float32), picture=lambda: nan))()
        ) as env,
        pytest.raises(FloatingPointError, match="an observation of env Lying is nan"),
    ):
        env.reset(seed=0)


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
def test_pictures_of_all_kinds_become_bytes(picture, expected):
    np.testing.assert_array_equal(picture_bytes(picture, "it"), expected)


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (None, "render.. gives None; make it with render_mode"),
        (RGB * 1.0, "draws floats outside of"),
        (RGB * np.nan, "draws floats outside of"),
        (RGB.astype(int) * 3, "draws int64 that are no bytes"),
        ([RGB, RGB], r"no picture: render\(\) gives uint8 of shape \(2, 30, 20, 3\)"),
        (RGB[..., :2], r"no picture: render\(\) gives uint8 of shape \(30, 20, 2\)"),
        ([RGB, RGB[:3]], "no picture"),
        ("a drawing", "no picture"),
    ],
    ids=["None", "floats to 255", "NaN", "more than bytes", "a list", "two channels", "ragged", "text"],
)
def test_what_render_gives_that_is_no_picture_is_refused(picture, says):
    with pytest.raises(ValueError, match=says) as refused:
        picture_bytes(picture, "it")
    assert "\n" not in str(refused.value)


def test_a_picture_that_changes_size_is_resized_each_time():
    sizes = iter([(30, 20), (60, 90), (10, 10)])

    def picture():
        return np.full((*next(sizes), 3), 90, np.uint8)

    space = gym.spaces.Box(-1, 1, (2,), np.float32)
    env = make_env_fn("", pixels=True, env_fn=lambda: Shown(space, "rgb_array", picture))()
    frames = [env.reset(seed=0)[0], env.step(0)[0], env.step(0)[0]]
    assert {frame.shape for frame in frames} == {(64, 64)}
    assert {int(value) for frame in frames for value in np.unique(frame)} == {90}


SHAPES = st.one_of(
    st.tuples(st.integers(1, 6)),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(1, 9)),
    st.tuples(st.integers(1, 9), st.integers(1, 70), st.integers(1, 70)),
)
KINDS = st.sampled_from(
    [
        (np.uint8, 0, 255),
        (np.uint8, 0, 1),
        (np.uint8, 3, 17),
        (np.bool_, 0, 1),
        (np.float32, 0.0, 1.0),
        (np.float64, 0.0, 0.5),
        (np.float32, -1.0, 1.0),
        (np.float32, 0.0, 255.0),
        (np.float32, -np.inf, np.inf),
        (np.int32, 0, 255),
        (np.int8, -4, 4),
    ]
)


@given(SHAPES, KINDS, st.sampled_from([None, True, False]), st.booleans())
def test_the_agent_sees_what_any_environment_gave_or_one_line_refuses_it(shape, kind, pixels, colour):
    dtype, low, high = kind
    space = gym.spaces.Box(low, high, shape, dtype)
    try:
        env = build(space, pixels, colour=colour)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017, some spaces are accepted
        assert colour or not is_image(space) or pixels is False
        return
    spec = spec_of_env(env)
    obs, _ = env.reset(seed=0)
    given_obs, drawn = env.unwrapped.newest, env.unwrapped.drawn
    assert (obs.shape, env.observation_space.shape) == (spec.shape, spec.shape)
    assert drawn == (0 if is_image(space) or not pixels else 1)
    if drawn:
        assert len(shape) not in (2, 3)  # never in place of two or three axes of numbers
        return
    if spec.stack is None:
        np.testing.assert_array_equal(obs.astype(spec.dtype), given_obs.astype(spec.dtype))
        return
    assert is_image(space)
    sides = sorted(given_obs.shape if len(shape) == 2 else spec.shape[:2])
    if max(sides) <= 32 and spec.shape[:2] != (64, 64):
        assert sorted(obs.astype(np.float64).ravel().tolist()) == sorted(
            np.float32(given_obs).astype(np.float64).ravel().tolist()
        )
    if obs.dtype == np.uint8:
        seen = obs.astype(np.float64) / spec.scale  # what the network sees
        top = float(high) if dtype == np.uint8 else 1.0
        assert seen.min() >= given_obs.min() / top - 0.01
        assert seen.max() <= given_obs.max() / top + 0.01


@given(st.integers(1, 5), st.sampled_from([(), (3,), (4, 5), (4, 5, 3)]), st.integers(0, 2**31))
def test_stacks_that_are_pushed_and_stacks_that_are_joined_are_the_same(stack, shape, seed):
    """A brute-force model: each environment's newest frames, the first one filling the slots before its episode."""
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
            places = [max(t - back, started[env]) for back in range(stack - 1, -1, -1)]
            window = np.stack([frames[place, env] for place in places])
            np.testing.assert_array_equal(join_frames(window, len(shape)), pushed[env])
            if len(shape) == 3:  # frame after frame along the channels
                np.testing.assert_array_equal(np.concatenate(list(window), axis=-1), pushed[env])
            else:
                np.testing.assert_array_equal(np.stack(list(window), axis=-1), pushed[env])
        assert pushed.shape[1:] == ObsSpec(shape, BYTES, stack).seen_shape


@pytest.mark.parametrize("shape", [(40, 50, 3), (3, 40, 50), (40, 50), (10, 10, 4), (4, 10, 10)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.bool_])
def test_a_rule_does_the_same_to_jax_and_to_numpy(shape, dtype):
    image = np.random.default_rng(0).random(shape)
    image = (image * 255).astype(np.uint8) if dtype == np.uint8 else image > 0.5 if dtype == np.bool_ else image
    image = image.astype(dtype)
    rule = image_rule(shape, dtype, 255.0, frame_size=16)
    ours, theirs = apply_rule(rule, image), apply_rule(rule, jnp.asarray(image))
    assert ours.dtype == theirs.dtype == rule.spec(shape, dtype).dtype
    assert ours.shape == theirs.shape == rule.spec(shape, dtype).shape
    assert np.abs(ours.astype(np.float64) - np.asarray(theirs, np.float64)).max() <= (1 if rule.resized else 0)
