"""Several devices: configs that cannot be split are refused; the other checks run in a process with four devices."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import python_path

from jaxdqn.config import Config
from jaxdqn.observations import ObsSpec
from jaxdqn.parallel.mesh import make_mesh, part_of
from jaxdqn.parallel.parallel_agent import agent_of


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_devices": 3, "num_envs": 8}, "num_envs 8 cannot be split over num_devices 3: use 6 or 9"),
        ({"num_devices": 4, "batch_size": 30}, "batch_size 30 cannot be split over num_devices 4: use 28 or 32"),
        ({"num_devices": 16}, "num_envs 8 cannot be split over num_devices 16: use 16"),
        ({"num_devices": 0}, "num_devices 0 must be above 0"),
        ({"num_devices": 2, "replay_storage": "host"}, "replay_storage 'host' needs num_devices 1, not 2"),
    ],
)
def test_config_that_cannot_be_split_is_refused_with_the_nearest_valid_values(fields, says):
    with pytest.raises(ValueError, match=says):
        Config(**fields)


def test_too_many_devices_are_refused():
    with pytest.raises(ValueError, match=r"num_devices 64 are not available: JAX finds \d"):
        make_mesh(64)


def test_part_of_a_run_has_its_share_of_each_field_and_as_many_batches():
    config = Config(num_envs=8, num_devices=4, batch_size=32, total_frames=18_010, warmup_frames=1_000, capacity=1_003)
    part = part_of(config, 4)
    assert (part.num_envs, part.batch_size, part.frames_per_batch, part.num_devices) == (2, 8, 8, 1)
    assert (part.capacity, part.warmup_frames, part.num_batches) == (250, 250, config.num_batches)
    assert part.updates_per_batch == config.updates_per_batch


def test_one_device_needs_no_parallel_agent():
    config = Config(pixels=False)
    assert agent_of(config, num_actions=2, obs=ObsSpec((4,), np.float32)).learning_start == 1_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "count"),
    [
        pytest.param("short", 4, marks=pytest.mark.several),
        pytest.param("medium", 6, marks=pytest.mark.long),
        pytest.param("long", 4, marks=pytest.mark.long),
    ],
)
def test_checks_pass_on_four_devices(which, count):
    """Run the checks of `tests/checks/parallel_checks.py` in a process with four devices."""
    path = Path(__file__).parent / "checks" / "parallel_checks.py"
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": python_path()}
    done = subprocess.run([sys.executable, path, which], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == count
