"""Environments in processes of their own: the same episodes, and nothing left behind."""

import threading

import gymnasium as gym
import numpy as np
import pytest

from jaxdqn.envs import workers
from jaxdqn.envs.pixels import make_env_fn
from jaxdqn.envs.workers import LocalEnv, WorkerEnv
from jaxdqn.run.evaluation import Evaluator

pytestmark = pytest.mark.slow


class Odd(gym.Env):
    """Counts its steps; action 1 hangs, action 2 raises."""

    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        self.count = float(seed)
        return np.array([self.count], np.float32), {}

    def step(self, action):
        if action == 1:
            threading.Event().wait()
        if action == 2:
            raise ArithmeticError("broken")
        self.count += 1
        return np.array([self.count], np.float32), self.count, self.count == 9, self.count == 7, {}


@pytest.fixture
def env():
    made = WorkerEnv(Odd)
    yield made
    processes = list(made._envs.processes)
    made.close()
    assert not any(process.is_alive() for process in processes)


def test_a_worker_does_what_the_environment_does_here(env):
    for made in (env, LocalEnv(Odd)):
        assert made.reset(5).tolist() == [5.0]
        steps = []
        for _ in range(4):
            made.begin(0)
            obs, *rest = made.finish()
            steps.append((obs.tolist(), *rest))
        assert steps == [
            ([6.0], 6.0, False, False),
            ([7.0], 7.0, False, True),
            ([8.0], 8.0, False, False),  # it does not reset itself
            ([9.0], 9.0, True, False),
        ]


def test_a_worker_that_hangs_is_an_error_and_can_be_closed(env, monkeypatch):
    monkeypatch.setattr(workers, "STEP_TIMEOUT", 0.2)
    env.reset(0)
    env.begin(1)
    with pytest.raises(TimeoutError, match="has not answered a step within 0 s"):
        env.finish()


def test_a_step_that_was_never_finished_does_not_keep_it_open(env):
    env.reset(0)
    env.begin(1)


def test_an_error_in_a_worker_is_raised_here(env):
    env.reset(0)
    env.begin(2)
    # gymnasium warns with the worker's traceback, which the error itself has lost.
    with (
        pytest.warns(UserWarning, match="Worker-0|broken|last"),
        pytest.raises(ArithmeticError, match="broken"),
    ):
        env.finish()


def test_a_worker_that_was_killed_is_an_error_and_can_be_closed(env):
    env.reset(0)
    env.begin(1)
    env._envs.processes[0].kill()
    with pytest.raises((OSError, EOFError)):
        env.finish()


def test_workers_play_the_episodes_that_this_process_plays():
    def policy(obs):
        return (obs[..., 2] > 0).astype(int)  # towards the side to which the pole leans

    played = []
    for in_workers in (False, True):
        build = make_env_fn("CartPole-v1", pixels=False, frame_size=1)
        evaluator = Evaluator(build, num_envs=3, workers=in_workers)
        played.append(evaluator.play(policy, range(7)))
        evaluator.close()
    assert played[0] == played[1]
    assert len({episode.length for episode in played[0]}) > 3
