"""What flags make of a preset."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxdqn.cli.flags import parse_config
from jaxdqn.config import Config
from jaxdqn.presets import PRESETS


@pytest.mark.parametrize(
    ("preset", "flags", "symmetries"),
    [
        ("cartpole", "", (2, True)),
        ("cartpole", "--env CartPole-v1", (2, True)),
        ("cartpole", "--no-mirror --random-shift 0", (0, False)),
        ("cartpole", "--env Acrobot-v1", (0, False)),
        ("cartpole", "--env=Acrobot-v1 --frame-size 2", (0, False)),  # which 2 pixels of a shift would not fit
        ("cartpole", "--env Acrobot-v1 --random-shift 2 --mirror", (2, True)),  # asked for, as the preset has them
        ("cartpole", "--no-pixels", (0, False)),
        ("torchrl", "", (0, False)),
        ("torchrl-demo", "--mirror", (0, True)),
    ],
)
def test_what_holds_of_cartpoles_frames_is_not_taken_for_granted_elsewhere(preset, flags, symmetries):
    config = parse_config(flags.split(), PRESETS[preset])
    assert (config.random_shift, config.mirror) == symmetries
    assert config.env == ("Acrobot-v1" if "Acrobot" in flags else "CartPole-v1")
    assert config.pixels == ("--no-pixels" not in flags)


def test_flags_that_name_no_environment_are_refused_before_the_others_are_read():
    with pytest.raises(ValueError, match=r"^[^\n]*--env[^\n]*$"):
        parse_config(["--gamma", "high", "--env"], PRESETS["cartpole"])


def test_another_environment_keeps_what_else_was_asked_for():
    config = parse_config(["--gamma", "0.5", "--env", "Acrobot-v1", "--double"], PRESETS["torchrl-demo"])
    assert (config.env, config.gamma, config.double) == ("Acrobot-v1", 0.5, True)
    assert config.learning_rate == PRESETS["torchrl-demo"].learning_rate


def test_numpys_scalars_and_paths_are_taken_as_pythons():
    given = {
        "total_frames": np.int64(5000),
        "gamma": np.float32(0.5),
        "mirror": np.bool_(False),
    }
    config = Config(
        **given, env=np.str_("A-v0"), output=Path("runs") / "a", learning_rate=np.int32(1), capacity=np.uint16(640)
    )
    assert config == Config(total_frames=5000, gamma=0.5, env="A-v0", output="runs/a", learning_rate=1.0, capacity=640)
    assert [type(value) for value in (config.total_frames, config.gamma, config.mirror)] == [int, float, bool]
    json.dumps(config.to_dict())
    with pytest.raises(ValueError, match=r"batch_size 2\.0 must be a whole number"):
        Config(batch_size=np.float64(2.0))
