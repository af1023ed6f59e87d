"""Random shifts: against a brute-force model, and where the agent applies them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxdqn.agent import make_agent
from jaxdqn.augmentation import random_shift, shift_batch
from jaxdqn.config import Config
from jaxdqn.types import Batch, Rows


def shift_of(before, after, pixels):
    """The only shift, of all those allowed, that turns one stack into the other."""
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


def test_every_stack_moves_as_one_by_its_own_shift_and_all_shifts_are_as_likely():
    stacks = random_stacks(70, 100, 3, 8, 4)
    shifted = np.asarray(random_shift(jax.random.key(0), jnp.asarray(stacks), 3))
    assert shifted.dtype == np.uint8
    pairs = zip(stacks.reshape(-1, 3, 8, 4), shifted.reshape(-1, 3, 8, 4), strict=True)
    counts = np.bincount([shift_of(before, after, 3) + 3 for before, after in pairs], minlength=7)
    assert counts.sum() == 7000
    assert abs(counts - 1000).max() < 150  # five standard deviations


def test_a_shift_of_0_leaves_frames_and_one_wider_than_they_are_repeats_an_edge():
    stacks = random_stacks(5, 4, 6, 2)
    assert np.array_equal(random_shift(jax.random.key(0), jnp.asarray(stacks), 0), stacks)
    wide = np.asarray(random_shift(jax.random.key(0), jnp.asarray(stacks), 10_000))
    edges = [
        np.array_equal(wide[i], np.repeat(stacks[i, :, side : side + 1], 6, 1)) for i in range(5) for side in (0, 5)
    ]
    assert sum(edges) == 5


def test_both_ends_of_a_window_are_shifted_independently_and_nothing_else_changes():
    obs = jnp.asarray(random_stacks(200, 2, 8, 4))
    batch = Batch(obs, jnp.arange(200), jnp.ones(200), jnp.ones(200), obs)
    shifted = shift_batch(jax.random.key(1), batch, 2)
    shifts = [
        [shift_of(np.asarray(a), np.asarray(b), 2) for a, b in zip(obs, end, strict=True)] for end in shifted[::4]
    ]
    assert abs(np.corrcoef(shifts)[0, 1]) < 0.3
    assert all(new is old for new, old in zip(shifted[1:4], batch[1:4], strict=True))


def test_the_agent_shifts_what_it_samples_and_not_what_it_holds():
    config = Config(
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
    frames = random_stacks(20, 2, 36, 36)
    zeros = jnp.zeros((20, 2))
    rows = Rows(
        obs=jnp.asarray(frames),
        action=zeros.astype(jnp.int32),
        reward=zeros,
        terminated=zeros.astype(bool),
        last=zeros.astype(bool),
        episode_step=jnp.broadcast_to(jnp.arange(20, dtype=jnp.int32)[:, None], (20, 2)),
    )
    sampled = {}
    for name, pixels in (("shifted", 3), ("plain", 0)):
        changed = dataclasses.replace(config, random_shift=pixels)
        agent = make_agent(changed, num_actions=2, obs_shape=(36, 36), obs_dtype=np.uint8)
        state = agent.observe(agent.init(jax.random.key(0)), rows)
        assert np.array_equal(state.replay.rows.obs[:20], frames)
        sampled[name] = np.asarray(agent.sample(state.replay, jax.random.key(5)).obs)[..., -1].reshape(-1, 36, 36)
    known = {frame.tobytes() for frame in frames.reshape(-1, 36, 36)}
    assert all(frame.tobytes() in known for frame in sampled["plain"])
    share = np.mean([frame.tobytes() in known for frame in sampled["shifted"]])
    assert 0 < share < 0.5  # one in seven stays where it was
