"""The ball that falls at a slant: who can catch it, how it moves, how it is drawn."""

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdqn
from jaxdqn.envs.ball import FALL, FLOOR, RADIUS, SIDE, SPEED, ball_frame, make_ball


def test_the_ball_by_its_id():
    env = jaxdqn.make_env_fn("jaxdqn/Ball-v0")()
    assert env.observation_space == gym.spaces.Box(0, 255, (64, 64), np.uint8)
    assert env.unwrapped.functional.action_space.n == 3
    env.close()


def catches(policy):
    """Balls caught in each of 20 episodes by a policy of `(state, key)`."""
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


def towards(place, state):
    return 1 + jnp.where(jnp.abs(place - state.paddle) > SPEED / 2, jnp.sign(place - state.paddle), 0).astype(jnp.int32)


def test_the_ball_is_caught_by_who_sees_its_motion_and_not_by_who_follows_it():
    def landing(state):
        wide = SIDE - 2 * RADIUS
        folded = (state.x - RADIUS + state.drift * jnp.ceil((FLOOR - state.y) / FALL)) % (2 * wide)
        return RADIUS + jnp.minimum(folded, 2 * wide - folded)

    assert (catches(lambda state, _: towards(landing(state), state)) == 20).all()
    assert catches(lambda state, _: towards(state.x, state)).mean() < 6
    assert catches(lambda _, key: jax.random.randint(key, (), 0, 3)).mean() < 6


def test_the_ball_bounces_and_is_drawn_where_it_is():
    env = make_ball()
    state, frame = env.reset(jax.random.key(2))
    seen, keys = [], jax.random.split(jax.random.key(0), 39)
    for key in keys:
        seen.append(float(state.state.x))
        rows, columns = np.nonzero(np.asarray(ball_frame(state.state, 64)) == 255)
        if len(rows) and state.state.y > 3:
            assert columns.mean() + 0.5 == pytest.approx(float(state.state.x), abs=0.6)
            assert rows.mean() + 0.5 == pytest.approx(float(state.state.y), abs=0.6)
        state, *_ = env.step(key, state, jnp.int32(1))
    turns = np.diff(np.sign(np.diff(seen))) != 0
    assert 1 <= turns.sum() <= 3  # 40 steps of 2 to 3.5 pixels across 60
    assert min(seen) >= RADIUS
    assert max(seen) <= SIDE - RADIUS
    assert int(frame.max()) > 0
