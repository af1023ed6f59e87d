"""MinAtar's games: one step from the same state as in the package `minatar`, time limits, pictures, both loops."""

import sys
from importlib import import_module
from types import SimpleNamespace

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.envs.functional.minatar import TIME_LIMITS, make_minatar
from jaxdqn.envs.functional_by_id import functional_env

pytest.importorskip("gymnax", reason="extra minatar")
original = pytest.importorskip("minatar", reason="extra test")

pytestmark = pytest.mark.implicit_promotion  # gymnax mixes dtypes

NAMES = {"Asterix": "asterix", "Breakout": "breakout", "Freeway": "freeway", "SpaceInvaders": "space_invaders"}


def theirs_of(name, state):
    """The package's game in the state of ours."""
    game = import_module(f"minatar.environments.{NAMES[name]}").Env(ramping=True)
    values = jax.device_get(vars(state))
    entities, cars = values.pop("entities", None), values.pop("cars", None)
    values.pop("time")
    for key, value in values.items():
        setattr(game, key, value.item() if np.ndim(value) == 0 else value.astype(float))
    if entities is not None:  # x, y, to the right, gold, exists
        game.entities = [[int(x), int(y), bool(lr), bool(gold)] if on else None for x, y, lr, gold, on in entities]
    if cars is not None:
        game.cars = [[int(value) for value in car] for car in cars]
    return game


def is_random(name, state, reward):
    """Whether chance decides a part of a step: an entity appears, or all cars get new speeds."""
    return (name == "Asterix" and int(state.spawn_timer) == 0) or (name == "Freeway" and reward > 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_that_of_the_original_game(name):
    env = make_minatar(name)
    actions = original.Environment(NAMES[name]).minimal_action_set()
    assert env.action_space.n == len(actions)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    rng = np.random.default_rng(0)
    state, obs = reset(jax.random.key(0))
    compared, rewards, ends = 0, 0.0, 0
    for index in range(1_500):
        action = int(rng.integers(len(actions)))
        if name == "Freeway" and rng.random() < 0.8:
            action = 1  # upwards: a random walk never gets to the other side
        game = theirs_of(name, state.state)
        assert np.array_equal(game.state(), obs != 0)
        before = state.state
        state, obs, reward, terminated, truncated = step(jax.random.key(index), state, jnp.int32(action))
        their_reward, their_end = game.act(actions[action])
        if not is_random(name, before, reward):
            assert float(reward) == their_reward
            assert bool(terminated) == bool(their_end)
            assert np.array_equal(game.state(), obs != 0)
            compared += 1
        rewards += float(reward)
        if terminated or truncated:
            ends += 1
            state, obs = reset(jax.random.key(10_000 + index))
    assert compared > 1_250
    assert rewards > 5
    assert ends > 10 or name == "Freeway"  # which only its time limit ends


@pytest.mark.parametrize("name", NAMES)
def test_time_limits_truncate(name):
    env = functional_env(f"MinAtar/{name}-v1", pixels=None)
    state, _ = env.reset(jax.random.key(0))
    limit = TIME_LIMITS[name]
    flags = []
    step = jax.jit(env.step)
    for steps in (limit - 2, limit - 1):
        at = state._replace(step=jnp.int32(steps))
        flags.append([bool(flag) for flag in step(jax.random.key(1), at, jnp.int32(0))[-2:]])
    assert flags == [[False, False], [False, True]]


@pytest.mark.parametrize("gymnax", [None, SimpleNamespace(make=lambda name: (object(), None))])
def test_a_gymnax_that_is_missing_or_has_another_space_invaders_is_refused(gymnax, monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax", gymnax)
    make_minatar.cache_clear()
    for make in (lambda: gym.make("MinAtar/Freeway-v1"), lambda: functional_env("MinAtar/Freeway-v1")):
        with pytest.raises(ValueError, match=r"^env MinAtar/Freeway-v1 needs gymnax 1\.0\.1 or later: python3 -m pip"):
            make()


def test_pictures_show_every_channel_in_its_colour():
    env = gym.make("MinAtar/Breakout-v1", render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    assert obs.shape == (10, 10, 4)
    assert set(np.unique(obs)) == {0, 1}
    picture = env.render()
    assert picture.shape == (160, 160, 3)
    cells = picture[8::16, 8::16]
    bricks = {tuple(cells[row, column]) for row, column in np.argwhere((obs == [0, 0, 0, 1]).all(axis=-1))}
    assert len(bricks) == 1
    (paddle,) = {tuple(cells[row, column]) for row, column in np.argwhere(obs[..., 0])}
    assert paddle not in bricks
    assert (cells[~(obs != 0).any(axis=-1)] == 0).all()
