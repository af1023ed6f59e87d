"""The random rollout: its statistics, in this process and in one of its own."""

import errno
import multiprocessing
import subprocess
import sys

import gymnasium as gym
import numpy as np
import probes
import pytest

from jaxdqn.config import Config
from jaxdqn.envs.gymnasium.wrappers import make_env_fn
from jaxdqn.training.obs_stats import WORTH_A_PROCESS, RolloutAhead, rollout_stats

CONFIG = Config(normalisation_frames=WORTH_A_PROCESS, pixels=True, frame_size=16, frame_stack=3)


@pytest.mark.slow
def test_another_process_finds_what_this_one_finds_and_is_gone():
    env = make_env_fn(CONFIG.env, frame_size=16)()
    rollout = RolloutAhead(CONFIG)
    found = rollout.result()
    assert not [child for child in multiprocessing.active_children() if child.name == "rollout"]
    assert rollout.result() is None  # it has been told
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
def test_it_is_deaf_to_ctrl_c_from_its_first_moment():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True True\n", "")


@pytest.mark.parametrize("fields", [{"pixels": False}, {"normalisation_frames": WORTH_A_PROCESS - 1}])
def test_there_is_no_process_where_it_would_not_pay(fields):
    rollout = RolloutAhead(Config(**{**CONFIG.to_dict(), **fields}))
    assert rollout._process is None
    assert rollout.result() is None
    rollout.close()


@pytest.mark.slow
def test_what_goes_wrong_there_is_no_answer(monkeypatch):
    assert RolloutAhead(Config(**{**CONFIG.to_dict(), "env": "NoSuchEnv-v0"})).result() is None
    monkeypatch.setattr("jaxdqn.training.obs_stats.TIMEOUT", 0.0)
    assert RolloutAhead(CONFIG).result() is None

    def refused(_):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", refused)
    assert RolloutAhead(CONFIG).result() is None


def test_an_environment_that_cannot_draw_is_named():
    class Blind(probes.Delayed):
        def reset(self, **_):
            raise gym.error.DependencyNotInstalled("no such library")

    with pytest.raises(ValueError, match="env Blind cannot be used: no such library"):
        rollout_stats(make_env_fn("", pixels=False, env_fn=Blind)(), CONFIG)
