"""Our CartPole compared with gymnasium's; `experiments/cartpole_twin.py` makes the same comparisons in full."""

import cartpole_twin as twin
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.envs.functional.cartpole import MAX_STEPS, MAX_THETA, MAX_X, CartPoleState, cartpole_step, make_cartpole
from jaxdqn.envs.functional.cartpole_rendering import cartpole_frame, cartpole_picture
from jaxdqn.preprocessing import preprocess_frame


def state(x=0.0, x_dot=0.0, theta=0.0, theta_dot=0.0):
    return CartPoleState(*(jnp.float32(value) for value in (x, x_dot, theta, theta_dot)))


def test_a_step_matches_a_calculation_by_hand():
    """Push upright and at rest with 10 N to the right: that accelerates by 10 / 1.1, and the pole falls to the left."""
    after, fallen = cartpole_step(state(), jnp.int32(1))
    push = 10 / 1.1
    theta_acc = -push / (0.5 * (4 / 3 - 0.1 / 1.1))
    x_acc = push - 0.1 * 0.5 * theta_acc / 1.1
    assert [float(value) for value in after] == pytest.approx([0, 0.02 * x_acc, 0, 0.02 * theta_acc], rel=1e-6)
    assert not fallen
    mirrored, _ = cartpole_step(state(), jnp.int32(0))
    assert [float(value) for value in mirrored] == pytest.approx([-float(value) for value in after])


@pytest.mark.parametrize(
    ("start", "fallen"),
    [
        (state(x=MAX_X - 0.01, x_dot=0.4), False),
        (state(x=MAX_X - 0.01, x_dot=0.6), True),
        (state(x=-MAX_X + 0.01, x_dot=-0.6), True),
        (state(theta=MAX_THETA - 0.01, theta_dot=0.4), False),
        (state(theta=MAX_THETA - 0.01, theta_dot=0.6), True),
        (state(theta=-MAX_THETA + 0.01, theta_dot=-0.6), True),
    ],
)
def test_an_episode_terminates_beyond_the_limits(start, fallen):
    assert bool(cartpole_step(start, jnp.int32(0))[1]) == fallen


def test_physics_match_gymnasiums():
    found = twin.compare_physics(24)
    assert found.steps > 24 * 10 + 8 * 490  # a third of the trajectories reach the time limit
    assert found.step_error < 8  # units in the last place, of sums of a dozen terms
    assert found.drift < 1e-3  # rounding errors, which grow e-fold in a quarter of a second
    assert found.different_ends == found.borderline == 0


def test_frames_match_pygames():
    found = twin.compare_pictures(250)
    assert found.mean < 0.01
    assert found.high <= 1
    assert found.largest <= 8
    assert found.worst.shape == (64, 192)


def test_colour_pictures_match_pygames():
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=0)
    for x, theta in ((0.0, 0.0), (-1.3, 0.15), (2.4, -0.2)):
        env.unwrapped.state = np.array([x, 0, theta, 0])
        ours = np.asarray(cartpole_picture(jnp.float32(x), jnp.float32(theta))).astype(int)
        difference = np.abs(ours - env.render())
        assert ours.shape == (400, 600, 3)
        assert difference.mean() < 0.02
        assert (difference.max(axis=-1) > 2).sum() < 80  # pixels of the pole's two short ends
    env.close()


@pytest.mark.parametrize(
    "size", [pytest.param(32, marks=pytest.mark.long), 44, 84, pytest.param(160, marks=pytest.mark.long)]
)
def test_frames_of_other_sizes_match_and_larger_ones_are_refused(size):
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=0)
    for x, theta in ((0.0, 0.0), (-1.3, 0.15), (2.4, -0.2)):
        env.unwrapped.state = np.array([x, 0, theta, 0])
        theirs = preprocess_frame(env.render(), (size, size)).astype(int)
        difference = np.abs(np.asarray(cartpole_frame(jnp.float32(x), jnp.float32(theta), size)) - theirs)
        assert difference.mean() < 0.02
        assert np.quantile(difference, 0.999) <= 2
        assert (theirs < 200).any()  # not all white
    env.close()
    with pytest.raises(ValueError, match="frame_size 401 must be at most 400"):
        make_cartpole(frame_size=401).reset(jax.random.key(0))


def test_an_episode_is_truncated_after_500_steps_and_starts_near_the_middle():
    env = make_cartpole(pixels=False)

    def step(carry, key):
        state, obs = carry
        action = (obs @ twin.BALANCING_WEIGHTS > 0).astype(jnp.int32)
        state, obs, reward, terminated, truncated = env.step(key, state, action)
        return (state, obs), (reward, terminated, truncated)

    first = env.reset(jax.random.key(3))
    _, (reward, terminated, truncated) = jax.lax.scan(step, first, jax.random.split(jax.random.key(0), MAX_STEPS))
    assert not terminated.any()
    assert truncated.tolist() == [False] * (MAX_STEPS - 1) + [True]
    assert (reward == 1).all()
    starts = jax.vmap(env.reset)(jax.random.split(jax.random.key(1), 500))[1]
    assert 0.045 < float(jnp.abs(starts).max()) <= 0.05
    assert float(jnp.abs(starts.mean(axis=0)).max()) < 0.01


def test_observations_are_the_frame_or_the_state():
    key = jax.random.key(0)
    pixels, vectors = make_cartpole(), make_cartpole(pixels=False)
    start, frame = pixels.reset(key)
    assert np.array_equal(frame, cartpole_frame(start.state.x, start.state.theta))
    assert pixels.observation_space.contains(np.asarray(frame))
    start, obs = vectors.reset(key)
    assert np.array_equal(obs, jnp.stack(start.state))
    assert vectors.observation_space.contains(np.asarray(obs))
    assert vectors.observation_space == gym.make("CartPole-v1").observation_space
    assert vectors.draw(start).shape == (400, 600, 3)
