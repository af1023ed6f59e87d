"""The random rollout: its statistics, in this process and in one of its own."""

import os
import signal

import gymnasium as gym
import numpy as np
import probes
import pytest

import jaxdqn
from jaxdqn.config import PRESETS, Config
from jaxdqn.envs.pixels import make_env_fn
from jaxdqn.run.rollout import WORTH_A_PROCESS, RolloutAhead, rollout_stats

CONFIG = Config(normalisation_frames=WORTH_A_PROCESS, frame_size=16, frame_stack=3)


@pytest.mark.slow
def test_another_process_finds_what_this_one_finds():
    env = make_env_fn(CONFIG.env, frame_size=16)()
    with RolloutAhead(CONFIG) as rollout:
        found = rollout.result()
        assert rollout.result() is None  # it has been told
    expected = rollout_stats(env, CONFIG)
    env.close()
    assert expected.mean.shape == (3,)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_it_is_deaf_to_ctrl_c_and_ends_with_its_block():
    with RolloutAhead(PRESETS["seed-demo"]) as rollout:
        process = rollout._process
        os.kill(process.pid, signal.SIGINT)
        process.join(0.5)
        assert process.is_alive()
    assert not process.is_alive()


@pytest.mark.parametrize("fields", [{"pixels": False}, {"normalisation_frames": WORTH_A_PROCESS - 1}])
def test_there_is_no_process_where_it_would_not_pay(fields):
    with RolloutAhead(Config(**{**CONFIG.to_dict(), **fields})) as rollout:
        assert rollout._process is None
        assert rollout.result() is None


@pytest.mark.slow
def test_an_error_there_is_no_answer_and_is_met_here():
    with RolloutAhead(Config(**{**CONFIG.to_dict(), "env": "NoSuchEnv-v0"})) as rollout:
        assert rollout.result() is None


def test_an_environment_that_cannot_draw_is_named():
    class Blind(probes.Delayed):
        def reset(self, **_):
            raise gym.error.DependencyNotInstalled("no such library")

    with pytest.raises(ValueError, match="env Blind cannot be used: no such library"):
        rollout_stats(Blind(), CONFIG)


def test_a_run_can_be_given_its_statistics(tmp_path):
    config = Config(
        total_frames=64,
        num_envs=2,
        frames_per_batch=32,
        batch_size=4,
        updates_per_batch=1,
        capacity=64,
        warmup_frames=32,
        frame_size=36,
        evaluation_episodes=1,
        output=str(tmp_path / "run"),
    )
    given = jaxdqn.ObservationStats(np.full(4, 0.25, np.float32), np.full(4, 0.5, np.float32))
    step = next(jaxdqn.train(config, obs_stats=lambda: given))
    assert np.array_equal(step.progress.state.learner.params["obs_stats"]["mean"], given.mean)
    assert np.array_equal(step.progress.state.actor.params["obs_stats"]["std"], given.std)
