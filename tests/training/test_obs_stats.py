"""The random rollout: its statistics, in this process and in a separate one."""

import errno
import multiprocessing
import subprocess
import sys

import gymnasium as gym
import numpy as np
import probes
import pytest

from jaxdqn.config import Config
from jaxdqn.envs.gymnasium.building import make_env_fn
from jaxdqn.training.obs_stats import MIN_FRAMES_FOR_PROCESS, RolloutAhead, rollout_stats

CONFIG = Config(normalisation_frames=MIN_FRAMES_FOR_PROCESS, pixels=True, frame_size=16, frame_stack=3)


@pytest.mark.slow
def test_a_separate_process_returns_the_same_statistics_and_ends():
    env = make_env_fn(CONFIG.env, frame_size=16)()
    rollout = RolloutAhead(CONFIG)
    found = rollout.result()
    assert not [child for child in multiprocessing.active_children() if child.name == "rollout"]
    assert rollout.result() is None  # the result is returned once
    expected = rollout_stats(env, CONFIG)
    env.close()
    assert expected.mean.shape == (3,)
    np.testing.assert_array_equal(found, expected)


ALONE = """
import os, signal, sys, time
from jaxdqn.presets import PRESETS
from jaxdqn.training.obs_stats import RolloutAhead

if __name__ == "__main__":
    rollout = RolloutAhead(PRESETS["torchrl-demo"])
    child = rollout._process.pid
    os.kill(child, signal.SIGINT)
    time.sleep(0.5)
    print(rollout._process.is_alive(), rollout.result() is not None)
"""


@pytest.mark.slow
def test_the_separate_process_ignores_ctrl_c_from_its_start():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True True\n", "")


@pytest.mark.parametrize("fields", [{"pixels": False}, {"normalisation_frames": MIN_FRAMES_FOR_PROCESS - 1}])
def test_no_process_is_started_without_pixels_or_for_few_frames(fields):
    rollout = RolloutAhead(Config(**{**CONFIG.to_dict(), **fields}))
    assert rollout._process is None
    assert rollout.result() is None
    rollout.close()


@pytest.mark.slow
def test_a_failure_of_the_separate_process_gives_none(monkeypatch):
    assert RolloutAhead(Config(**{**CONFIG.to_dict(), "env": "NoSuchEnv-v0"})).result() is None
    monkeypatch.setattr("jaxdqn.training.obs_stats.TIMEOUT", 0.0)
    assert RolloutAhead(CONFIG).result() is None

    def refused(_):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", refused)
    assert RolloutAhead(CONFIG).result() is None


def test_an_environment_with_a_missing_dependency_is_named():
    class Blind(probes.Delayed):
        def reset(self, **_):
            raise gym.error.DependencyNotInstalled("no such library")

    with pytest.raises(ValueError, match="env Blind cannot be used: no such library"):
        rollout_stats(make_env_fn("", pixels=False, env_fn=Blind)(), CONFIG)
