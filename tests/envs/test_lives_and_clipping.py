"""Lost lives are terminal states for learning alone, and clipped rewards are the rows' alone."""

import dataclasses

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from whole_runs import VECTORS, finish

import jaxdqn
from jaxdqn.envs.rows import StepResult, advance, open_episodes
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import Episode, make_vector_env
from jaxdqn.evaluation.evaluator import Evaluator


class Lives(gym.Env):
    """Counts its steps: 3 lives, one lost in steps 2, 3 and 5, in which the game ends; step t gives reward 2 t - 5."""

    observation_space = gym.spaces.Box(0, 10, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._obs(), {"lives": 3, "unread": object()}

    def step(self, action):
        self.count += 1
        lives = 3 - sum(self.count >= step for step in (2, 3, 5))
        return self._obs(), 2.0 * self.count - 5, lives == 0, False, {"lives": lives}

    def _obs(self):
        return np.array([self.count], np.float32)


def rows_of(envs, steps, **options):
    collector = Collector(envs, seed=0, **options)
    try:
        return collector.collect(lambda obs: np.zeros(len(obs), np.int32), steps)
    finally:
        collector.close()


# gymnasium cannot combine `unread`: only our own vector environments drop it.
MAKERS = {"ours": lambda: make_vector_env(Lives, 2), "workers": lambda: make_vector_env(Lives, 2, workers=True)}


@pytest.mark.parametrize("name", MAKERS)
def test_a_lost_life_terminates_in_the_row_and_the_episode_continues(name):
    rows, episodes = rows_of(MAKERS[name](), 9, terminal_on_life_loss=True, clip_rewards=True, reward_scale=0.5)
    for env in range(2):
        assert rows.obs[:, env, 0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
        assert rows.terminated[:, env].tolist() == [False, True, True, False, True, False, False, True, True]
        assert rows.last[:, env].tolist() == [False] * 5 + [True] + [False] * 3
        assert rows.episode_step[:, env].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
        # -3, -1, 1, 3, 5, clipped and then scaled; the row of the final observation has none.
        assert rows.reward[:, env].tolist() == [-0.5, -0.5, 0.5, 0.5, 0.5, 0, -0.5, -0.5, 0.5]
    assert episodes == [Episode(5.0, 5)] * 2


@pytest.mark.parametrize("mode", AutoresetMode)
def test_lives_are_read_in_all_autoreset_modes(mode):
    class Only(Lives):
        def reset(self, **options):
            obs, info = super().reset(**options)
            return obs, {"lives": info["lives"]}

    envs = gym.vector.SyncVectorEnv([Only] * 2, autoreset_mode=mode)
    rows, episodes = rows_of(envs, 9, terminal_on_life_loss=True)
    assert rows.terminated[:, 1].tolist() == [False, True, True, False, True, False, False, True, True]
    assert episodes == [Episode(5.0, 5)] * 2


def test_without_the_option_lives_are_not_read_and_evaluations_play_whole_games():
    rows, _ = rows_of(make_vector_env(Lives, 2), 6)
    assert rows.terminated[:, 0].tolist() == [False] * 4 + [True, False]
    assert rows.reward[:5, 0].tolist() == [-3, -1, 1, 3, 5]
    games = Evaluator(Lives).play(lambda obs: np.zeros(len(obs), int), range(2))
    assert games == [Episode(5.0, 5)] * 2


class NoLives(Lives):
    def reset(self, **options):
        return super().reset(**options)[0], {}


def test_an_environment_without_lives_is_refused(tmp_path):
    says = r"NoLives gives no number info\['lives'\]: set terminal_on_life_loss to False"
    with pytest.raises(ValueError, match=says):
        rows_of(make_vector_env(NoLives, 2), 1, terminal_on_life_loss=True)
    config = dataclasses.replace(VECTORS, terminal_on_life_loss=True)
    with pytest.raises(ValueError, match=says):
        finish(config, tmp_path / "none", env_fn=NoLives)
    assert not (tmp_path / "none").exists()
    finish(config, tmp_path / "run", env_fn=Lives)
    with pytest.raises(ValueError, match="terminal_on_life_loss True needs loop host"):
        jaxdqn.Config(loop="device", terminal_on_life_loss=True)


@pytest.mark.parametrize("number", [float, np.float32, np.array])
def test_lives_may_be_any_number(number):
    class Numbers(Lives):
        def reset(self, **options):
            return super().reset(**options)[0], {"lives": number(3)}

        def step(self, action):
            *result, info = super().step(action)
            return *result, {"lives": number(info["lives"])}

    rows, _ = rows_of(make_vector_env(Numbers, 2), 6, terminal_on_life_loss=True)
    assert rows.terminated[:, 0].tolist() == [False, True, True, False, True, False]


def test_lives_that_are_missing_in_a_step_are_found():
    class Forgets(Lives):
        def step(self, action):
            *result, _ = super().step(action)
            return *result, {}

    with pytest.raises(ValueError, match=r"Forgets gives no number info\['lives'\]"):
        rows_of(make_vector_env(Forgets, 2), 3, terminal_on_life_loss=True)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_life_lost_in_the_first_step_is_found_in_every_episode(mode):
    class Early(Lives):
        def reset(self, **options):
            return super().reset(**options)[0], {"lives": 3}

        def step(self, action):
            obs, reward, _, truncated, _ = super().step(action)
            return obs, reward, self.count == 3, truncated, {"lives": 3 - self.count}

    rows, _ = rows_of(gym.vector.SyncVectorEnv([Early] * 2, autoreset_mode=mode), 6, terminal_on_life_loss=True)
    assert rows.terminated[:, 1].tolist() == [True, True, True, False, True, True]


def test_an_infinite_reward_is_found_although_rewards_are_clipped():
    class Infinite(Lives):
        def step(self, action):
            obs, _, *rest = super().step(action)
            return obs, np.inf, *rest

    with pytest.raises(FloatingPointError, match="reward of environment 0 is inf"):
        rows_of(make_vector_env(Infinite, 2), 2, clip_rewards=True)


@pytest.mark.parametrize("xp", [np, jnp])
def test_rows_of_numpy_and_jax_are_the_same(xp):
    cursor = open_episodes(xp.zeros((4, 1)), None)._replace(last=xp.asarray([False, False, False, True]))
    result = StepResult(
        xp.ones((4, 1)),
        xp.asarray([-7.0, 0.25, 3.0, 9.0]),
        xp.zeros(4, bool),
        xp.zeros(4, bool),
        life_lost=xp.asarray([True, False, False, True]),
    )
    row, after, ended = advance(cursor, xp.zeros(4, xp.int32), result, frame_stack=None, clip_rewards=True)
    assert row.reward.tolist() == [-1, 0.25, 1, 0]
    assert row.terminated.tolist() == [True, False, False, False]  # an ignored step loses no life
    assert not after.last.any()
    assert not ended.ended.any()
    assert ended.raw_return.tolist() == [-7, 0.25, 3, 0]
