"""The ball that falls diagonally: which policies catch it, how it moves, how it is drawn."""

import subprocess
import sys

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdqn
from jaxdqn.envs.functional.ball import (
    FALL_SPEED,
    FLOOR,
    HALF_PADDLE,
    PADDLE_SPEED,
    RADIUS,
    SIDE,
    THICKNESS,
    BallState,
    ball_frame,
    bounce,
    make_ball,
)


def test_the_ball_is_made_by_its_id():
    env = jaxdqn.make_env_fn("jaxdqn/Ball-v0")()
    assert env.observation_space == gym.spaces.Box(0, 255, (64, 64), np.uint8)
    assert env.unwrapped.functional.action_space.n == 3
    env.close()


def caught_balls(policy):
    """Return the balls caught in each of 20 episodes by a policy of `(state, key)`."""
    env = make_ball(pixels=False)

    def play(key):
        def step(state, key):
            state, _, reward, terminated, truncated = env.step(key, state, policy(state.state, key))
            return state, (reward, terminated, truncated)

        return jax.lax.scan(step, env.reset(key)[0], jax.random.split(key, 800))[1]

    reward, terminated, truncated = jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(1), 20))
    assert not terminated.any()
    assert (truncated == (jnp.arange(800) == 799)).all()
    return np.asarray(reward.sum(axis=1))


def towards(target, state):
    distance = target - state.paddle
    return 1 + jnp.where(jnp.abs(distance) > PADDLE_SPEED / 2, jnp.sign(distance), 0).astype(jnp.int32)


def test_policies_that_predict_the_landing_catch_the_ball_and_those_that_follow_it_do_not():
    def landing(state):
        wide = SIDE - 2 * RADIUS
        folded = (state.x - RADIUS + state.drift * jnp.ceil((FLOOR - state.y) / FALL_SPEED)) % (2 * wide)
        return RADIUS + jnp.minimum(folded, 2 * wide - folded)

    assert (caught_balls(lambda state, _: towards(landing(state), state)) == 20).all()
    assert caught_balls(lambda state, _: towards(state.x, state)).mean() < 6
    assert caught_balls(lambda _, key: jax.random.randint(key, (), 0, 3)).mean() < 6


def state_of(**fields):
    return BallState(**{name: jnp.float32(fields.get(name, 30)) for name in BallState._fields})


def test_the_ball_moves_by_its_drift_and_bounces_off_both_walls():
    env = make_ball()
    state, _ = env.reset(jax.random.key(2))
    seen = []
    for key in jax.random.split(jax.random.key(0), 39):
        seen.append(float(state.state.x))
        state, *_ = env.step(key, state, jnp.int32(1))
    turns = np.diff(np.sign(np.diff(seen))) != 0
    assert 1 <= turns.sum() <= 3  # 40 steps of 2 to 3.5 pixels across 60
    assert min(seen) >= RADIUS
    assert max(seen) <= SIDE - RADIUS
    assert [tuple(map(float, bounce(jnp.float32(x), jnp.float32(3)))) for x in (1, 30, 63)] == [
        (3, -3),
        (30, 3),
        (61, -3),
    ]


@pytest.mark.parametrize("size", [20, 64, 100])
@pytest.mark.parametrize(("x", "y", "paddle"), [(20, 20, 32), (5.3, 41.7, 9.2), (61.5, 10, 60)])
def test_ball_and_paddle_are_drawn_at_their_positions_and_sizes(size, x, y, paddle):
    """Compare the centres and areas of both, in pixels of the field."""
    frame = np.asarray(ball_frame(state_of(x=x, y=y, paddle=paddle), size)) / 255
    pixel = (np.arange(size) + 0.5) * SIDE / size
    area = (SIDE / size) ** 2
    above, below = np.where(pixel[:, None] < FLOOR - 4, frame, 0), np.where(pixel[:, None] < FLOOR - 4, 0, frame)
    for drawn, centre, true_area, tolerance in (
        (above, (x, y), np.pi * RADIUS**2, 0.05 if size >= 64 else 0.35),  # soft edges widen a disc of half a pixel
        (below, (paddle, FLOOR + THICKNESS / 2), 0.6 * 2 * HALF_PADDLE * THICKNESS, 0.02),
    ):
        assert drawn.sum() * area == pytest.approx(true_area, rel=tolerance)
        assert (drawn.sum(axis=0) @ pixel) / drawn.sum() == pytest.approx(centre[0], abs=0.2)
        assert (drawn.sum(axis=1) @ pixel) / drawn.sum() == pytest.approx(centre[1], abs=0.2)


def test_the_ball_is_made_by_its_id_in_a_process_that_has_not_imported_jaxdqn(tmp_path):
    code = 'import gymnasium; print(gymnasium.make("jaxdqn.envs:jaxdqn/Ball-v0").reset()[0].shape)'
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(64, 64)", done.stderr


@pytest.mark.parametrize(("pixels", "shape"), [(True, (20, 20)), (False, (4,))])
def test_both_forms_of_the_ball_have_the_same_observations(pixels, shape):
    env = jaxdqn.make_env_fn("jaxdqn/Ball-v0", pixels=pixels, frame_size=20)()
    functional = jaxdqn.functional_env("jaxdqn/Ball-v0", pixels=pixels, frame_size=20)
    assert env.observation_space == functional.observation_space
    obs, _ = env.reset(seed=0)
    assert obs.shape == shape
    assert np.array_equal(obs, functional.observe(env.unwrapped._state))
    env.close()
