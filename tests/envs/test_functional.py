"""Functional environments: autoreset and rows, time limits, adapters."""

from types import SimpleNamespace

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.phys2d.cartpole import CartPoleFunctional
from gymnasium.utils.env_checker import check_env
from probes import counting_env

from jaxdqn.envs.functional.adapters import GymnasiumEnv, from_func_env, from_gymnax
from jaxdqn.envs.functional.ball import make_ball
from jaxdqn.envs.functional.cartpole import CartPoleState, cartpole_step, make_cartpole
from jaxdqn.envs.functional.env import random_rollout, time_limit, vectorise
from jaxdqn.envs.rows import advance, open_episodes
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import episodes_of, make_vector_env


def rows_of(env, num_envs=2, steps=12, key=0, action=0, **options):
    """Return rows `[T, N]` and the episodes that ended, with a constant action."""
    envs = vectorise(env, num_envs)
    reset_key, key = jax.random.split(jax.random.key(key))
    states, obs = envs.reset(reset_key)
    options = {"frame_stack": None, "reward_scale": 1.0, **options}

    def step(carry, key):
        states, cursor = carry
        actions = jnp.full(num_envs, action, jnp.int32)
        states, step_result = envs.step(key, states, cursor.last, actions)
        row, cursor, ended = advance(cursor, actions, step_result, **options)
        return (states, cursor), (row, ended)

    start = states, open_episodes(obs, options["frame_stack"])
    _, (rows, ended) = jax.jit(lambda start, keys: jax.lax.scan(step, start, keys))(start, jax.random.split(key, steps))
    return jax.device_get((rows, ended))


@pytest.mark.parametrize("truncates", [False, True])
def test_an_episode_of_k_transitions_has_k_plus_one_rows(truncates):
    rows, ended = rows_of(counting_env(3, truncates=truncates), reward_scale=0.5)
    assert rows.obs[:, 0, 0].tolist() == [0, 1, 2, 3] * 3
    assert rows.episode_step[:, 0].tolist() == [0, 1, 2, 3] * 3
    assert rows.last[:, 0].tolist() == [False, False, False, True] * 3
    assert rows.terminated[:, 0].tolist() == [False, False, not truncates, False] * 3
    # The step that resets has reward 0, although the environment returns 10 times the index of the step.
    assert rows.reward[:, 0].tolist() == [0, 5, 10, 0] * 3
    assert [episode._asdict() for episode in episodes_of(ended)] == [{"raw_return": 30.0, "length": 3}] * 6


def test_rows_match_those_of_the_collector():
    """Step the same environment through gymnasium's vector environment and the `Collector`."""
    env = counting_env(3)
    rows, _ = rows_of(env)
    envs = make_vector_env(lambda: GymnasiumEnv(env), 2)
    host_rows, episodes = Collector(envs, seed=0).collect(lambda obs: np.zeros(2, np.int64), 12)
    envs.close()
    assert rows.mask is host_rows.mask is None
    for ours, theirs in zip(rows[:-1], host_rows[:-1], strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
    assert len(episodes) == 6


def test_each_environment_has_its_own_keys_and_each_episode_another_start():
    rows, _ = rows_of(make_cartpole(pixels=False), num_envs=3, steps=40)
    starts = rows.obs[rows.episode_step == 0]
    assert len(starts) >= 6
    assert len(np.unique(starts[:, 0])) == len(starts)


def test_stacks_of_a_new_episode_hold_no_frames_of_the_episode_before():
    env = counting_env(2)._replace(observe=lambda state: jnp.full((2, 2), state, jnp.uint8))
    env = env._replace(observation_space=gym.spaces.Box(0, 255, (2, 2), np.uint8))
    reset, step = env.reset, env.step
    env = env._replace(
        reset=lambda key: (reset(key)[0], env.observe(reset(key)[0])),
        step=lambda key, state, action: (lambda s, _, *rest: (s, env.observe(s), *rest))(*step(key, state, action)),
    )
    envs = vectorise(env, 1)
    states, obs = envs.reset(jax.random.key(0))
    cursor = open_episodes(obs, 3)
    seen = []
    for _ in range(6):
        seen.append(np.asarray(cursor.stack)[0, 0, 0].tolist())
        states, step_result = envs.step(jax.random.key(0), states, cursor.last, jnp.zeros(1, jnp.int32))
        _, cursor, _ = advance(cursor, jnp.zeros(1, jnp.int32), step_result, frame_stack=3, reward_scale=1.0)
    assert seen == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [0, 0, 0], [0, 0, 1], [0, 1, 2]]


def test_a_time_limit_truncates_and_a_terminal_state_in_its_last_step_sets_both_flags():
    rows, _ = rows_of(time_limit(counting_env(5), 2), num_envs=1, steps=6)
    assert rows.last[:, 0].tolist() == [False, False, True] * 2
    assert not rows.terminated.any()
    env = time_limit(counting_env(2), 2)
    state, _ = env.reset(jax.random.key(0))
    state, *_ = env.step(jax.random.key(0), state, jnp.int32(0))
    *_, terminated, truncated = env.step(jax.random.key(0), state, jnp.int32(0))
    assert bool(terminated) and bool(truncated)  # noqa: PT018
    for wrong, says in ((lambda: time_limit(env, 0), "max_steps 0"), (lambda: vectorise(env, 0), "num_envs 0")):
        with pytest.raises(ValueError, match=says):
            wrong()


def test_a_random_rollout_leaves_final_observations_out():
    env = make_cartpole(frame_size=44)
    stacks = random_rollout(env, jax.random.key(0), frames=100, frame_stack=2)
    assert stacks.dtype == np.uint8
    assert stacks.shape[1:] == (44, 44, 2)
    assert 100 <= len(stacks) < 208
    assert len(np.unique(stacks[..., -1].reshape(len(stacks), -1), axis=0)) > 50


class OldGymnax:
    """An environment of gymnax before 1.0: `step_env` returns five values, with one flag for all ends."""

    default_params = SimpleNamespace(length=3)

    def action_space(self, params):
        return SimpleNamespace(n=2)

    def observation_space(self, params):
        return SimpleNamespace(low=-1.0, high=9.0)

    def reset_env(self, key, params):
        return jnp.zeros(1), jnp.int32(0)

    def step_env(self, key, state, action, params):
        now = state + 1
        return jnp.full(1, now, jnp.float32), now, 10.0 * state, now >= params.length, {}


class NewGymnax(OldGymnax):
    """An environment of gymnax 1.0: `step_env` says what is terminal, `is_truncated` what the time limit ends."""

    def step_env(self, key, state, action, params):
        obs, state, reward, _, info = super().step_env(key, state, action, params)
        return obs, state, reward, jnp.bool_(False), info

    def is_truncated(self, state, params):
        return state >= params.length


class SixValues(OldGymnax):
    """An environment whose `step_env` returns both flags."""

    def step_env(self, key, state, action, params):
        obs, state, reward, done, info = super().step_env(key, state, action, params)
        return obs, state, reward, jnp.bool_(False), done, info


@pytest.mark.parametrize(("kind", "terminates"), [(OldGymnax, True), (NewGymnax, False), (SixValues, False)])
def test_gymnax_environments_of_all_versions_give_the_expected_rows(kind, terminates):
    env = from_gymnax(kind())
    assert env.observation_space == gym.spaces.Box(-1, 9, (1,), np.float32)
    rows, _ = rows_of(env, steps=8)
    wanted, _ = rows_of(counting_env(3, truncates=not terminates), steps=8)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(rows[:-1], wanted[:-1], strict=True))
    longer, _ = rows_of(from_gymnax(kind(), SimpleNamespace(length=7)), steps=8)
    assert longer.last[:, 0].tolist() == [False] * 7 + [True]


def test_objects_that_are_not_gymnax_environments_are_refused():
    with pytest.raises(ValueError, match="object has no reset_env and step_env"):
        from_gymnax(object())
    moved = OldGymnax()
    moved.action_space = lambda params: SimpleNamespace(shape=(1,))
    with pytest.raises(ValueError, match="needs discrete actions"):
        from_gymnax(moved)


def test_gymnax_cartpole_matches_ours():
    gymnax = pytest.importorskip("gymnax", reason="gymnax is not installed")
    made, params = gymnax.make("CartPole-v1")
    env = from_gymnax(made, params)
    assert env.action_space.n == 2
    assert env.observation_space.shape == (4,)
    rows, ended = rows_of(env, num_envs=4, steps=60)
    assert len(episodes_of(ended)) >= 12  # with the same push at each step an episode lasts 8 to 10 steps
    assert np.array_equal(rows.terminated[:-1], rows.last[1:])
    # Its physics match ours, including the final observation of each episode, which its autoreset would hide.
    for now in np.argwhere(~rows.last[:-1]):
        start = CartPoleState(*rows.obs[tuple(now)])
        after, fallen = cartpole_step(start, jnp.int32(0))
        assert np.allclose(after, rows.obs[now[0] + 1, now[1]], atol=1e-5)
        assert bool(fallen) == rows.terminated[tuple(now)]
    # A time limit of 5 steps: before 1.0 it looks like a fall, and `time_limit` corrects that.
    short = from_gymnax(made, params.replace(max_steps_in_episode=5))
    old = not hasattr(made, "is_truncated")
    for limited, terminated in ((short, 2 if old else 0), (time_limit(env, 5), 0)):
        rows, _ = rows_of(limited, num_envs=1, steps=12)
        assert np.flatnonzero(rows.last[:, 0]).tolist() == [5, 11]
        assert rows.terminated.sum() == terminated


def test_gymnasiums_functional_environments_are_adapted():
    env = time_limit(from_func_env(CartPoleFunctional()), 20)
    rows, _ = rows_of(env, steps=40)
    assert rows.obs.dtype == np.float32
    assert rows.last.any()
    assert (rows.reward[~rows.last] == 1).all()

    class Wrong(CartPoleFunctional):
        action_space = gym.spaces.Box(0, 1, (1,))

    with pytest.raises(ValueError, match="Wrong has actions Box"):
        from_func_env(Wrong())


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the checker: the environment has no spec
@pytest.mark.parametrize("make", [make_cartpole, make_ball])
def test_functional_environments_pass_gymnasiums_checker(make):
    env = GymnasiumEnv(make(), render_mode="rgb_array")
    check_env(env)
    first, again = env.reset(seed=5)[0], env.reset(seed=5)[0]
    assert np.array_equal(first, again)
    assert not np.array_equal(env.reset()[0], env.reset()[0])
    assert env.render().ndim == 3
    with pytest.raises(ValueError, match=r"render_mode 'human' is not supported .* use 'rgb_array' or None"):
        GymnasiumEnv(make(), render_mode="human")
    fresh = GymnasiumEnv(make(), render_mode="rgb_array")
    for early in (lambda: fresh.step(0), fresh.render):
        with pytest.raises(gym.error.ResetNeeded, match="call reset before"):
            early()


def test_gymnasium_environments_with_the_same_functions_are_compiled_once(caplog):
    first, second = GymnasiumEnv(make_ball(frame_size=20)), GymnasiumEnv(make_ball(frame_size=20))
    first.reset(seed=0)
    first.step(0)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        second.reset(seed=0)
        second.step(0)
    assert not [record for record in caplog.records if "ompil" in record.message]


def test_observations_have_the_dtype_that_rows_hold():
    int_env = counting_env(3)._replace(
        reset=lambda key: (jnp.int32(0), jnp.zeros(1, jnp.int32)),
        observe=lambda state: jnp.full(1, state, jnp.int32),
        observation_space=gym.spaces.Box(0, 100, (1,), np.int32),
    )
    envs = vectorise(int_env, 2)
    states, obs = envs.reset(jax.random.key(0))
    _, step_result = envs.step(jax.random.key(0), states, jnp.zeros(2, bool), jnp.zeros(2, jnp.int32))
    assert obs.dtype == step_result.obs.dtype == np.float32
