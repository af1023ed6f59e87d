"""Shifts and mirror images: against brute-force models, against CartPole, and in the agent."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.agent.making import make_agent
from jaxdqn.augmentation import augment_batch, mirror_batch, random_shift, shift_batch
from jaxdqn.config import Config
from jaxdqn.envs.gymnasium.building import make_env_fn
from jaxdqn.types import Batch, Rows

pytestmark = pytest.mark.usefixtures("strict_promotion")


def shift_of(before, after, pixels):
    """Return the only shift within `pixels` that turns one stack into the other."""
    found = []
    for shift in range(-pixels, pixels + 1):
        expected = np.empty_like(before)
        for column in range(before.shape[1]):
            expected[:, column] = before[:, min(max(column + shift, 0), before.shape[1] - 1)]
        if np.array_equal(expected, after):
            found.append(shift)
    assert len(found) == 1
    return found[0]


def random_stacks(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_every_stack_has_its_own_shift_and_all_shifts_are_equally_likely():
    stacks = random_stacks(70, 100, 3, 8, 4)
    shifted = np.asarray(random_shift(jax.random.key(0), jnp.asarray(stacks), 3))
    assert shifted.dtype == np.uint8
    pairs = zip(stacks.reshape(-1, 3, 8, 4), shifted.reshape(-1, 3, 8, 4), strict=True)
    counts = np.bincount([shift_of(before, after, 3) + 3 for before, after in pairs], minlength=7)
    assert counts.sum() == 7000
    assert abs(counts - 1000).max() < 150  # five standard deviations


def test_a_shift_of_0_changes_nothing_and_one_beyond_the_width_repeats_an_edge():
    stacks = random_stacks(5, 4, 6, 2)
    assert np.array_equal(random_shift(jax.random.key(0), jnp.asarray(stacks), 0), stacks)
    wide = np.asarray(random_shift(jax.random.key(0), jnp.asarray(stacks), 10_000))
    edges = [
        np.array_equal(wide[i], np.repeat(stacks[i, :, side : side + 1], 6, 1)) for i in range(5) for side in (0, 5)
    ]
    assert sum(edges) == 5


def test_a_window_is_shifted_as_a_whole_and_nothing_else_changes():
    both = random_stacks(2, 200, 2, 8, 4)
    batch = Batch(jnp.asarray(both[0]), jnp.arange(200), jnp.ones(200), jnp.ones(200), jnp.asarray(both[1]))
    shifted = shift_batch(jax.random.key(1), batch, 2)
    first, last = (
        [shift_of(old, new, 2) for old, new in zip(before, np.asarray(after), strict=True)]
        for before, after in zip(both, (shifted.obs, shifted.next_obs), strict=True)
    )
    assert first == last
    assert set(first) == {-2, -1, 0, 1, 2}
    assert all(new is old for new, old in zip(shifted[1:4], batch[1:4], strict=True))


def test_half_of_the_windows_are_mirrored_with_their_actions_and_the_others_unchanged():
    both = random_stacks(2, 4, 100, 3, 8, 4)
    action = np.random.default_rng(1).integers(0, 3, (4, 100))
    ones = jnp.ones((4, 100))
    masks = np.random.default_rng(2).integers(0, 2, (2, 4, 100, 3), dtype=bool)
    batch = Batch(jnp.asarray(both[0]), jnp.asarray(action), ones, ones, jnp.asarray(both[1]), *jnp.asarray(masks))
    mirrored = mirror_batch(jax.random.key(1), batch, 3)
    turned = 0
    for index in np.ndindex(4, 100):
        frames = [np.asarray(obs[index]) for obs in (mirrored.obs, mirrored.next_obs)]
        image = all(np.array_equal(new, old[index][:, ::-1]) for new, old in zip(frames, both, strict=True))
        assert image or all(np.array_equal(new, old[index]) for new, old in zip(frames, both, strict=True))
        assert int(mirrored.action[index]) == (2 - action[index] if image else action[index])
        for new, old in zip((mirrored.mask, mirrored.next_mask), masks, strict=True):
            np.testing.assert_array_equal(new[index], old[index][::-1] if image else old[index])
        turned += image
    assert abs(turned - 200) < 50  # five standard deviations
    assert mirrored.reward is batch.reward
    assert mirrored.discount is batch.discount


@pytest.mark.parametrize("frames", [1, 2, 3, 4])  # two and four bytes are moved as words
def test_augment_batch_equals_shift_then_mirror(frames):
    both = jnp.asarray(random_stacks(2, 50, 3, 8, frames))
    batch = Batch(both[0], jnp.arange(50) % 2, jnp.ones(50), jnp.ones(50), both[1])
    keys = jax.random.split(jax.random.key(3))
    augmented = augment_batch(jax.random.key(3), batch, random_shift=2, mirror=True, num_actions=2)
    expected = mirror_batch(keys[1], shift_batch(keys[0], batch, 2), 2)
    jax.tree.map(np.testing.assert_array_equal, augmented, expected)


def test_mirroring_observations_that_are_not_stacks_of_frames_is_refused():
    for shape in ((5, 4), (5, 8, 8)):
        obs = jnp.zeros(shape)
        batch = Batch(obs, jnp.zeros(5, jnp.int32), jnp.ones(5), jnp.ones(5), obs)
        with pytest.raises(ValueError, match=r"mirrored must be stacks of frames \[..., H, W, K\], not \(5, "):
            mirror_batch.__wrapped__(jax.random.key(0), batch, 2)  # without the check of shapes


def test_the_mirror_image_of_cartpole_is_cartpole():
    """A state's frame, flipped left to right, is the frame of the negated state, and steps agree."""
    env = make_env_fn("CartPole-v1", pixels=True, frame_size=64)()
    env.reset(seed=0)
    cartpole = env.unwrapped
    for state in np.random.default_rng(0).uniform(-1, 1, (10, 4)) * [2.0, 1.0, 0.2, 1.0]:
        seen, ends = [], []
        for sign, action in ((1, 1), (-1, 0)):
            cartpole.state = sign * state
            frame, *_ = env.step(action)
            cartpole.steps_beyond_terminated = None
            seen.append(frame.astype(int))
            ends.append(np.array(cartpole.state))
        np.testing.assert_allclose(ends[0], -ends[1], rtol=1e-12)
        # Drawn in whole pixels of 400x600, so the pole's edge may be a pixel to the side; 9 columns become one.
        difference = np.abs(seen[0] - seen[1][:, ::-1])
        assert difference.max() <= 60
        assert difference.mean() < 0.2
        assert np.abs(seen[0] - seen[0][:, ::-1]).mean() > 1  # the frame is not its own mirror image
    env.close()


def test_floats_are_shifted_like_bytes_and_bad_shapes_or_shifts_are_refused():
    stacks = random_stacks(9, 3, 8, 4)
    shifted = random_shift(jax.random.key(3), jnp.asarray(stacks), 2)
    floats = random_shift(jax.random.key(3), jnp.asarray(stacks, jnp.float32), 2)
    assert floats.dtype == jnp.float32
    assert np.array_equal(floats, shifted)
    with pytest.raises(ValueError, match="random_shift -1 must be 0 or above"):
        random_shift(jax.random.key(0), jnp.asarray(stacks), -1)
    with pytest.raises(ValueError, match="stacks of frames"):
        random_shift.__wrapped__(jax.random.key(0), jnp.zeros((4, 4)), 1)  # without the check of shapes


CONFIG = Config(
    frame_size=36,
    total_frames=64,
    num_envs=2,
    frames_per_batch=16,
    batch_size=32,
    updates_per_batch=2,
    capacity=64,
    warmup_frames=32,
    n_steps=2,
)
FRAMES = random_stacks(20, 2, 36, 36)


def agent_and_state(**changes):
    agent = make_agent(dataclasses.replace(CONFIG, **changes), num_actions=2, obs_shape=(36, 36), obs_dtype=np.uint8)
    zeros = jnp.zeros((20, 2))
    rows = Rows(
        obs=jnp.asarray(FRAMES),
        action=zeros.astype(jnp.int32),
        reward=zeros,
        terminated=zeros.astype(bool),
        last=zeros.astype(bool),
        episode_step=jnp.broadcast_to(jnp.arange(20, dtype=jnp.int32)[:, None], (20, 2)),
    )
    return agent, agent.observe(agent.init(jax.random.key(0)), rows)


def test_the_agent_shifts_sampled_frames_and_not_the_ring():
    sampled = {}
    for pixels in (3, 0):
        agent, state = agent_and_state(random_shift=pixels)
        assert np.array_equal(state.replay.rows.obs[:20], FRAMES)
        sampled[pixels] = np.asarray(agent.sample(state.replay, jax.random.key(5)).batch.obs)[..., -1].reshape(
            -1, 36, 36
        )
    known = {frame.tobytes() for frame in FRAMES.reshape(-1, 36, 36)}
    assert all(frame.tobytes() in known for frame in sampled[0])
    share = np.mean([frame.tobytes() in known for frame in sampled[3]])
    assert 0 < share < 0.5  # one in seven has shift 0


def test_the_agent_mirrors_sampled_frames():
    agent, state = agent_and_state(mirror=True)
    batch = agent.sample(state.replay, jax.random.key(5)).batch
    newest, actions = np.asarray(batch.obs)[..., -1].reshape(-1, 36, 36), np.asarray(batch.action).reshape(-1)
    known = {frame.tobytes() for frame in FRAMES.reshape(-1, 36, 36)}
    images = {np.ascontiguousarray(frame[:, ::-1]).tobytes() for frame in FRAMES.reshape(-1, 36, 36)}
    assert all(
        (frame.tobytes() in known, frame.tobytes() in images) == (action == 0, action == 1)  # replay has only action 0
        for frame, action in zip(newest, actions, strict=True)
    )
    assert set(actions) == {0, 1}


def test_windows_shifts_and_mirror_images_are_drawn_with_separate_keys():
    agent, state = agent_and_state(random_shift=3, mirror=True)
    plain, plain_state = agent_and_state()
    key = jax.random.key(5)
    windows = plain.sample(plain_state.replay, key).batch
    _, augment_key = jax.random.split(key)
    updates = len(windows.action)
    expected = []
    for update, update_key in enumerate(jax.random.split(augment_key, updates)):  # each update can be drawn alone
        shift_key, mirror_key = jax.random.split(update_key)
        shifted = shift_batch(shift_key, jax.tree.map(lambda x, u=update: x[u], windows), 3)
        expected.append(mirror_batch(mirror_key, shifted, 2))
    assert updates > 1
    sampled = agent.sample(state.replay, key).batch
    jax.tree.map(lambda x, *parts: np.testing.assert_array_equal(x, np.stack(parts)), sampled, *expected)


@pytest.mark.implicit_promotion
@pytest.mark.long
def test_the_agent_learns_from_shifted_frames():
    agent, state = agent_and_state(random_shift=3)
    _, sample_key = jax.random.split(state.key)
    _, metrics, _ = agent.update(jax.tree.map(jnp.copy, state.learner), agent.sample(state.replay, sample_key))
    _, traces = agent.learn(state)
    np.testing.assert_allclose(traces["loss"], metrics["loss"], rtol=1e-4)
    plain, state = agent_and_state(random_shift=0)
    _, unshifted = plain.learn(state)
    assert not np.allclose(traces["loss"], unshifted["loss"], rtol=1e-3)


@pytest.mark.parametrize(("changes", "value"), [({"random_shift": 4}, 4), ({"mirror": True}, True)])
def test_vectors_cannot_be_shifted_or_mirrored(changes, value):
    (name,) = changes
    with pytest.raises(ValueError, match=rf"{name} {value} needs images, not vectors of shape \(36,\): set it to "):
        make_agent(dataclasses.replace(CONFIG, **changes), num_actions=2, obs_shape=(36,), obs_dtype=np.uint8)


def test_a_shift_as_large_as_the_image_width_is_refused():
    narrow = dataclasses.replace(CONFIG, random_shift=5)
    with pytest.raises(ValueError, match="random_shift 5 must be below the image width of 5"):
        make_agent(narrow, num_actions=2, obs_shape=(9, 5, 3), obs_dtype=np.uint8)


def test_colour_stacks_are_shifted_and_mirrored_like_grey_ones():
    colours = random_stacks(4, 6, 8, 9)  # three frames of three channels
    grey = [jnp.asarray(colours[..., channel : channel + 1]) for channel in range(9)]
    batch = Batch(*(jnp.asarray(x) for x in (colours, np.zeros(4, np.int32), np.zeros(4), np.zeros(4), colours)))
    options = {"random_shift": 2, "mirror": True, "num_actions": 2}
    moved = augment_batch(jax.random.key(5), batch, **options).obs
    for channel, plane in enumerate(grey):
        alone = augment_batch(jax.random.key(5), batch._replace(obs=plane, next_obs=plane), **options).obs
        np.testing.assert_array_equal(moved[..., channel : channel + 1], alone)
