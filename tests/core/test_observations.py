"""The agent sees what the environment gave, or a one-line error says why not: images, vectors, rendered pictures."""

import contextlib

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.wrappers import FrameStackObservation
from hypothesis import given
from hypothesis import strategies as st
from image_envs import GivenObs, RandomObs, box

from jaxdqn.envs.gymnasium.building import make_env_fn, spec_of_env
from jaxdqn.envs.gymnasium.spaces import is_image, may_be_stacked_vectors
from jaxdqn.envs.gymnasium.wrappers import PixelObservation
from jaxdqn.observations import ObsSpec
from jaxdqn.preprocessing import preprocess_frame

BYTES, FLOATS = np.dtype(np.uint8), np.dtype(np.float32)


def build(space, pixels=True, **options):
    return make_env_fn("", pixels=pixels, env_fn=lambda: RandomObs(space, render_mode="rgb_array"), **options)()


# A space, and its spec in replay: shape, dtype, stack, and the divisor of bytes.
UNCHANGED = [
    (box((10, 10, 4), np.bool_), ObsSpec((10, 10, 4), BYTES, 1, 1.0)),  # MinAtar
    (box((10, 10, 4), np.uint8, high=1), ObsSpec((10, 10, 4), BYTES, 1, 1.0)),
    (box((10, 10)), ObsSpec((10, 10), BYTES, 1, 255.0)),
    (box((7, 7, 3), high=10), ObsSpec((7, 7, 3), BYTES, 1, 10.0)),  # MiniGrid
    (box((32, 32, 3)), ObsSpec((32, 32, 3), BYTES, 1, 255.0)),
    (box((84, 84, 4)), ObsSpec((84, 84, 4), BYTES, 1, 255.0)),
    (box((4, 84, 84)), ObsSpec((84, 84, 4), BYTES, 1, 255.0)),  # FrameStackObservation of AtariPreprocessing
    (box((84, 84, 4), np.float32), ObsSpec((84, 84, 4), FLOATS, 1, 1.0)),
    (box((4, 10, 12), np.float32), ObsSpec((10, 12, 4), FLOATS, 1, 1.0)),
    (box((3, 3, 3)), ObsSpec((3, 3, 3), BYTES, 1, 255.0)),
    (box((60, 80, 2)), ObsSpec((60, 80, 2), BYTES, 1, 255.0)),
    (box((64, 64)), ObsSpec((64, 64), BYTES, 4, 255.0)),  # grey and of the target size already
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


@pytest.mark.parametrize(("space", "spec"), UNCHANGED, ids=lambda case: str(case)[:40])
def test_small_images_and_those_with_other_channels_are_unchanged(space, spec):
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
def test_other_images_are_resized_and_made_grey_unless_colour_is_set(space, colour):
    with contextlib.closing(build(space, colour=colour)) as env:
        obs, _ = env.reset(seed=0)
        seen = env.unwrapped.newest.astype(np.float64) * (255 / float(np.max(space.high)))
        seen = np.moveaxis(seen, 0, -1) if seen.ndim == 3 and seen.shape[0] <= 3 else seen
        kept = colour and seen.shape[2:] == (3,)
        assert spec_of_env(env) == ObsSpec((64, 64, 3) if kept else (64, 64), BYTES, 4, 255.0)
        assert obs.shape == spec_of_env(env).shape
        planes = [seen[..., i] for i in range(3)] if kept else [seen]
        for plane, mine in zip(planes, np.moveaxis(obs, -1, 0) if kept else [obs], strict=True):
            expected = preprocess_frame(jnp.asarray(plane, jnp.float32))  # by JAX; the environment uses Pillow
            assert np.abs(mine.astype(int) - np.asarray(expected, int)).max() <= 1
        assert obs.std() > 0
        assert env.unwrapped.drawn == 0


def test_image_observations_are_never_replaced_by_rendered_ones():
    for space in (*RESIZED, *(space for space, _ in UNCHANGED)):
        for pixels in (True, None):
            with contextlib.closing(build(space, pixels)) as env:
                env.reset(seed=0)
                env.step(0)
                assert isinstance(env, PixelObservation)
                assert env.unwrapped.drawn == 0


@pytest.mark.parametrize("scale", [False, True])
def test_frames_stacked_by_gymnasium_channels_first_are_used(scale):
    inner = RandomObs(box((84, 84), np.float32 if scale else np.uint8))
    with contextlib.closing(make_env_fn("", env_fn=lambda: FrameStackObservation(inner, 4))()) as env:
        obs, _ = env.reset(seed=0)
        assert spec_of_env(env).shape == obs.shape == (84, 84, 4)
        np.testing.assert_array_equal(obs[..., -1], inner.newest)


REFUSED = [
    (box((40, 40, 3), np.float32, low=-1, high=1), True, "images must be uint8, bool, or floats with bounds in"),
    (box((40, 40, 3), np.float32, low=-1, high=1), None, "images must be uint8, bool, or floats with bounds in"),
    (box((84, 84), np.float32, high=255), True, "images must be uint8, bool, or floats with bounds in"),
    (gym.spaces.Box(0, 255, (64, 64, 3), np.int64), True, "images must be uint8, bool, or floats with bounds in"),
    (gym.spaces.Box(0, 1, (2, 4, 64, 64), np.float32), None, "neither images nor|images must be"),
    (box((0, 4)), None, "they are empty, so there is nothing to learn from"),
    (gym.spaces.Discrete(16), None, "FlattenObservation"),
    (gym.spaces.Dict(image=box((8, 8, 3))), None, "FlattenObservation"),
    (gym.spaces.Discrete(16), False, "--no-pixels needs a Box of numbers"),
]


@pytest.mark.parametrize(("space", "pixels", "says"), REFUSED, ids=lambda case: str(case)[:30])
def test_spaces_that_are_neither_images_nor_vectors_are_refused_in_one_line(space, pixels, says):
    with pytest.raises(ValueError, match=says) as refused:
        build(space, pixels)
    assert "\n" not in str(refused.value)


def test_vectors_are_rendered_only_if_pixels_is_true():
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
    """Spaces of vectors, and their specs in replay."""
    return [
        (box((128,)), ObsSpec((128,), BYTES, None, 255.0)),  # Atari's RAM
        (box((5,), np.uint8, high=1), ObsSpec((5,), BYTES, None, 1.0)),
        (box((5,), np.bool_), ObsSpec((5,), BYTES, None, 1.0)),
        (gym.spaces.Box(-3, 3, (4,), np.int64), ObsSpec((4,), FLOATS, None, 1.0)),
        (gym.spaces.Box(-3, 3, (), np.float64), ObsSpec((), FLOATS, None, 1.0)),
        (gym.spaces.Box(-3, 3, (4, 6), np.float64), ObsSpec((4, 6), FLOATS, None, 1.0)),
    ]


@pytest.mark.parametrize(("space", "spec"), vectors(), ids=lambda case: str(case)[:30])
def test_vectors_of_all_dtypes_are_unchanged(space, spec):
    with contextlib.closing(build(space, None)) as env:
        assert spec_of_env(env) == spec
        np.testing.assert_array_equal(env.reset(seed=1)[0], env.unwrapped.newest)
        assert np.can_cast(env.observation_space.dtype, spec.dtype, "same_kind")


@pytest.mark.parametrize(
    ("space", "gives", "says"),
    [
        (box((8, 8)), lambda: np.full((8, 9), 1, np.uint8), r"shape \(8, 9\), but its space says \(8, 8\)"),
        (
            box((4,)),
            lambda: np.array([0.5, 0, 0, 0]),
            "float64 observations with values that its space's uint8 cannot hold",
        ),
        (box((4,)), lambda: np.array([256, 0, 0, 0]), "int64 observations with values that its space's uint8"),
        (box((4,), np.float32), lambda: "nothing", "shape|not an array of numbers"),
        (
            box((40, 40), np.float32),
            lambda: np.full((40, 40), 255.0, np.float32),
            "from 255 to 255, but its space allows 0 to 1",
        ),
    ],
    ids=["shape", "fractions", "too large", "words", "not in [0, 1]"],
)
def test_observations_outside_their_space_are_refused(space, gives, says):
    with contextlib.closing(make_env_fn("", pixels=None, env_fn=lambda: GivenObs(space, picture=gives))()) as env:
        with pytest.raises(ValueError, match=says) as refused:
            env.reset(seed=0)
        assert "\n" not in str(refused.value)


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
def test_the_agent_sees_what_the_environment_gave_or_it_is_refused_in_one_line(shape, kind, pixels, colour):
    dtype, low, high = kind
    space = gym.spaces.Box(low, high, shape, dtype)
    try:
        env = build(space, pixels, colour=colour)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017, some spaces are accepted
        assert colour or not is_image(space) or pixels is False or may_be_stacked_vectors(space)
        return
    spec = spec_of_env(env)
    obs, _ = env.reset(seed=0)
    given_obs, drawn = env.unwrapped.newest, env.unwrapped.drawn
    assert (obs.shape, env.observation_space.shape) == (spec.shape, spec.shape)
    assert drawn == (0 if is_image(space) or not pixels else 1)
    if drawn:
        assert len(shape) not in (2, 3)  # never instead of two or three axes of numbers
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
