"""Rows from a vector environment: what replay relies on, with an environment that counts its own steps."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest

from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import Episode, make_vector_env, random_stacks
from jaxdqn.envs.vector.workers import start_method
from jaxdqn.evaluation.evaluator import Evaluator, summarise


class Counter(gym.Env):
    """Observe `100 * episode + step`; odd episodes are truncated after 3 steps, even ones terminate after 2."""

    observation_space = gym.spaces.Box(0, 1e6, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    episode = 0
    seeds = ()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds = (*self.seeds, seed)
        self.episode += 1
        self.count = 0
        return self.observe(), {}

    def observe(self):
        return np.array([100 * self.episode + self.count], np.float32)

    def step(self, action):
        self.count += 1
        truncates = self.episode % 2 == 1
        done = self.count == (3 if truncates else 2)
        return self.observe(), 10.0 * self.episode + self.count, done and not truncates, done and truncates, {}


def collect(num_steps, **options):
    collector = Collector(make_vector_env(Counter, 2), seed=0, **options)
    return collector.collect(lambda obs: np.zeros(len(obs), np.int32), num_steps)


def test_rows_hold_every_step_and_the_final_observation_of_each_episode():
    rows, episodes = collect(9)
    assert rows.obs[:, 0, 0].tolist() == [100, 101, 102, 103, 200, 201, 202, 300, 301]
    assert rows.last[:, 0].tolist() == [False, False, False, True, False, False, True, False, False]
    assert rows.episode_step[:, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1]
    assert rows.reward[:, 0].tolist() == [11, 12, 13, 0, 21, 22, 0, 31, 32]
    assert rows.terminated[:, 0].tolist() == [False] * 5 + [True] + [False] * 3
    assert episodes == [Episode(36.0, 3)] * 2 + [Episode(43.0, 2)] * 2
    for field in rows[:-1]:  # the last one is the mask, which this environment does not have
        assert np.array_equal(field[:, 0], field[:, 1])


def test_rewards_of_rows_are_scaled_and_those_of_episodes_are_raw():
    rows, episodes = collect(4, reward_scale=0.5)
    assert rows.reward[:, 0].tolist() == [5.5, 6.0, 6.5, 0.0]
    assert episodes[0].raw_return == 36.0


def test_a_second_collect_continues_where_the_first_stopped():
    collector = Collector(make_vector_env(Counter, 1), seed=0)
    parts = [collector.collect(lambda obs: np.zeros(1, np.int32), steps)[0] for steps in (2, 3, 4)]
    whole, _ = collect(9)
    assert whole.mask is None
    for part, field in list(zip(zip(*parts, strict=True), whole, strict=True))[:-1]:
        assert np.array_equal(np.concatenate(part), field[:, :1])


def test_the_policy_sees_stacks_without_frames_of_the_episode_before():
    seen = []
    collector = Collector(make_vector_env(Counter, 1), seed=0, frame_stack=3)
    collector.collect(lambda obs: seen.append(obs[0, 0].tolist()) or np.zeros(1, np.int32), 6)
    assert seen == [
        [100, 100, 100],
        [100, 100, 101],
        [100, 101, 102],
        [101, 102, 103],  # the final observation: this action is ignored
        [200, 200, 200],
        [200, 200, 201],
    ]


@pytest.mark.parametrize(
    ("mode", "workers"),
    [
        (gym.vector.AutoresetMode.SAME_STEP, False),
        (gym.vector.AutoresetMode.DISABLED, False),
        pytest.param(gym.vector.AutoresetMode.SAME_STEP, True, marks=pytest.mark.slow),
    ],
)
def test_other_autoreset_modes_give_the_same_rows_as_next_step(mode, workers):
    """Step three environments with different lengths, so that one ends while the others continue."""

    def rows_of(mode, workers):
        makers = [partial(Lengths, length) for length in (2, 3, 1)]
        if workers:
            envs = gym.vector.AsyncVectorEnv(makers, autoreset_mode=mode, context=start_method())
        else:
            envs = gym.vector.SyncVectorEnv(makers, autoreset_mode=mode)
        collector = Collector(envs, seed=0)
        rows, episodes = collector.collect(lambda obs: np.zeros(3, np.int32), 12)
        collector.close()
        return rows, episodes

    wanted, ended = rows_of(gym.vector.AutoresetMode.NEXT_STEP, workers=False)
    assert wanted.obs[:, 0, 0].tolist() == [0, 1, 2] * 4  # the final observation is 2, after two steps
    found, episodes = rows_of(mode, workers)
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.array_equal(ours, theirs)
    assert episodes == ended
    assert sorted({episode.length for episode in episodes}) == [1, 2, 3]


class Lengths(gym.Env):
    """Observe the step of the episode, which has `length` steps."""

    observation_space = gym.spaces.Box(0, 1_000, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        ended = self.count >= self.length
        return np.full(1, self.count, np.float32), float(self.count), ended, False, {}


def test_an_unknown_autoreset_mode_is_refused():
    envs = gym.vector.SyncVectorEnv([Counter])
    envs.metadata = {**envs.metadata, "autoreset_mode": "sometimes"}
    with pytest.raises(ValueError, match="autoreset_mode sometimes"):
        Collector(envs, seed=0)


def test_random_stacks_leave_out_final_observations():
    stacks = random_stacks(Counter(), frames=4, frame_stack=2, seed=0)
    assert stacks[:, 0].tolist() == [[100, 100], [100, 101], [101, 102], [200, 200], [200, 201]]


def test_seeds_differ_by_environment_purpose_and_run():
    seeds = [*spawn_seeds(0, 50), *spawn_seeds(0, 50, Purpose.SELECTION), *spawn_seeds(1, 50)]
    assert len(set(seeds)) == 150
    assert spawn_seeds(3, 2) == spawn_seeds(3, 4)[:2]


@pytest.mark.parametrize("num_envs", [1, 2, 3])
def test_evaluation_plays_whole_episodes_from_every_seed_once(num_envs):
    evaluator = Evaluator(Counter, num_envs=num_envs)
    shapes = set()
    episodes = evaluator.play(lambda obs: shapes.add(obs.shape) or np.zeros(len(obs), np.int32), range(10, 15))
    assert len(episodes) == 5
    assert all(episode.length in (2, 3) for episode in episodes)
    assert shapes == {(num_envs, 1)}  # one shape: the policy is compiled once
    played = sorted(seed for env in evaluator._envs for seed in env.seeds)
    assert played == [10, 11, 12, 13, 14]


def test_evaluation_does_not_prefer_short_episodes():
    class Sized(Counter):
        def reset(self, *, seed=None, options=None):
            self.size = seed
            return super().reset(seed=seed)

        def step(self, action):
            self.count += 1
            return self.observe(), 1.0, self.count == self.size, False, {}

    sizes = [30, 1, 2, 1, 17, 3]
    episodes = Evaluator(Sized, num_envs=2).play(lambda obs: np.zeros(len(obs), np.int32), sizes)
    assert episodes == [Episode(float(size), size) for size in sizes]


def test_a_summary_matches_a_calculation_by_hand():
    found = summarise([Episode(1.0, 1), Episode(2.0, 2), Episode(6.0, 6)])
    assert (found.mean, found.median, found.min, found.max, found.episodes) == (3.0, 2.0, 1.0, 6.0, 3)
    assert found.standard_error == pytest.approx((7 / 3) ** 0.5)  # variance (4 + 1 + 9) / 2 = 7, over 3 episodes
    assert found.lengths == [1, 2, 6]
    assert summarise([Episode(5.0, 2)]).standard_error == 0.0
