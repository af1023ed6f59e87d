"""Flags change a preset's config."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxdqn.cli.train_flags import parse_config
from jaxdqn.config import Config
from jaxdqn.presets import PRESETS


@pytest.mark.parametrize(
    ("preset", "flags", "symmetries"),
    [
        ("cartpole", "", (2, True)),
        ("cartpole", "--env CartPole-v1", (2, True)),
        ("cartpole", "--no-mirror --random-shift 0", (0, False)),
        ("cartpole", "--env Acrobot-v1", (0, False)),
        ("cartpole", "--env=Acrobot-v1 --frame-size 2", (0, False)),  # a shift of 2 pixels would not fit
        ("cartpole", "--env Acrobot-v1 --random-shift 2 --mirror", (2, True)),  # the preset's values, set by flags
        ("cartpole", "--no-pixels", (0, False)),
        ("torchrl", "", (0, False)),
        ("torchrl-demo", "--mirror", (0, True)),
    ],
)
def test_symmetries_of_cartpole_apply_to_other_environments_only_if_set_by_flags(preset, flags, symmetries):
    config = parse_config(flags.split(), PRESETS[preset])
    assert (config.random_shift, config.mirror) == symmetries
    assert config.env == ("Acrobot-v1" if "Acrobot" in flags else "CartPole-v1")
    assert config.pixels == ("--no-pixels" not in flags)


def test_env_without_a_value_is_reported_before_other_wrong_flags():
    with pytest.raises(ValueError, match=r"^[^\n]*--env[^\n]*$"):
        parse_config(["--gamma", "high", "--env"], PRESETS["cartpole"])


def test_another_environment_keeps_the_other_flags():
    config = parse_config(["--gamma", "0.5", "--env", "Acrobot-v1", "--double"], PRESETS["torchrl-demo"])
    assert (config.env, config.gamma, config.double) == ("Acrobot-v1", 0.5, True)
    assert config.learning_rate == PRESETS["torchrl-demo"].learning_rate


def test_numpy_scalars_and_paths_are_converted_to_python_types():
    fields = {
        "total_frames": np.int64(5000),
        "gamma": np.float32(0.5),
        "mirror": np.bool_(False),
    }
    config = Config(
        **fields, env=np.str_("A-v0"), output=Path("runs") / "a", learning_rate=np.int32(1), capacity=np.uint16(640)
    )
    assert config == Config(total_frames=5000, gamma=0.5, env="A-v0", output="runs/a", learning_rate=1.0, capacity=640)
    assert [type(value) for value in (config.total_frames, config.gamma, config.mirror)] == [int, float, bool]
    json.dumps(config.to_dict())
    with pytest.raises(ValueError, match=r"batch_size 2\.0 must be a whole number"):
        Config(batch_size=np.float64(2.0))
