"""Gymnasium's own vector environments, and environments that write every step into the same arrays."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from jaxdqn.envs.vector.collector import Collector

CARTPOLE_STEPS = 12


def act(obs):
    return np.arange(len(obs)) % 2


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_environments_of_make_vec_are_collected_from(mode):
    rows, _ = Collector(gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode=mode), seed=3).collect(act, 40)
    assert rows.obs.shape == (40, 8, 4)
    assert rows.obs.dtype == np.float32
    assert rows.last.any()
    after = rows.episode_step[1:][rows.last[:-1]]
    assert (after == 0).all()
    assert len(np.unique(rows.obs[0], axis=0)) == 8


def test_a_vector_environment_that_takes_one_seed_is_reproducible():
    def first(seed):
        return Collector(gym.make_vec("CartPole-v1", num_envs=3), seed=seed).cursor.obs

    np.testing.assert_array_equal(first(5), first(5))
    assert not np.array_equal(first(5), first(6))


def test_native_vector_cartpole_has_the_physics_of_the_single_environment():
    rows, _ = Collector(gym.make_vec("CartPole-v1", num_envs=2), seed=0).collect(act, CARTPOLE_STEPS)
    env = gym.make("CartPole-v1").unwrapped
    for index in range(2):
        env.reset(seed=0)
        env.state = tuple(rows.obs[0, index].astype(float))
        for step in range(1, CARTPOLE_STEPS):
            obs, _, terminated, _, _ = env.step(int(rows.action[step - 1, index]))
            np.testing.assert_allclose(rows.obs[step, index], obs, atol=1e-4)
            assert rows.last[step, index] == terminated
            if terminated:
                break


class Counting(gym.Env):
    """Observe the number of steps; an episode has five."""

    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_now = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.step_now += 1
        return np.full(1, self.step_now, np.float32), float(self.step_now), self.step_now == 5, False, {}


def test_observations_changed_in_place_are_copied():
    envs = gym.vector.SyncVectorEnv([Counting] * 2, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
    rows, _ = Collector(envs, seed=0).collect(act, 7)
    np.testing.assert_array_equal(rows.obs[:, 0, 0], [0, 1, 2, 3, 4, 5, 0])


class InPlace(gym.vector.VectorEnv):
    """Return the same arrays at each step, and take a single seed."""

    num_envs = 2
    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012, as in gymnasium
    single_observation_space = observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    single_action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        assert isinstance(seed, int)
        self.obs, self.reward = np.zeros((2, 1), np.float32), np.zeros(2)
        self.terminated, self.truncated = np.zeros(2, bool), np.zeros(2, bool)
        return self.obs, {}

    def step(self, actions):
        ended = self.terminated.copy()
        self.obs += 1
        self.obs[ended] = 0
        self.reward[:] = self.obs[:, 0]
        self.terminated[:] = self.obs[:, 0] == 3
        return self.obs, self.reward, self.terminated, self.truncated, {}


def test_rewards_and_flags_changed_in_place_are_copied():
    rows, episodes = Collector(InPlace(), seed=0).collect(act, 8)
    np.testing.assert_array_equal(rows.obs[:, 0, 0], [0, 1, 2, 3, 0, 1, 2, 3])
    np.testing.assert_array_equal(rows.reward[:, 1], [1, 2, 3, 0, 1, 2, 3, 0])
    np.testing.assert_array_equal(rows.terminated[:, 0], [0, 0, 1, 0, 0, 0, 1, 0])
    assert [tuple(episode) for episode in episodes] == [(6.0, 3)] * 4
