"""Configs: the presets, the exact values of TorchRL's tutorial, and the fields that are refused."""

import dataclasses
import json
import math
import re

import pytest

from jaxdqn.checkpoints.compatibility import OLD_VALUES, config_of_file
from jaxdqn.config import Config
from jaxdqn.presets import PRESETS

# "Hyperparameters" of TorchRL's tutorial: those that both presets share, the demo as it runs, and the full run that its
# comments describe.
SHARED = {
    "updates_per_batch": 8,
    "epsilon_start": 0.1,
    "epsilon_end": 0.005,
    "gamma": 0.99,
    "n_steps": 5,
    "learning_rate": 2e-3,
    "learning_rate_end": 2e-3,
    "weight_decay": 1e-5,
    "tau": 0.005,
    "double": False,
    "loss": "squared",
    "reward_scale": 0.1,
    "warmup_frames": 0,
    "max_gradient_norm": None,
    "env": "CartPole-v1",
    "pixels": True,
    "network": "torchrl",
    "random_shift": 0,
    "mirror": False,
    "frame_size": 64,
    "frame_stack": 4,
    "normalisation_frames": 1000,
    "greedy_params": "online",
}
TUTORIAL = {
    "torchrl-demo": {
        "total_frames": 5000,
        "frames_per_batch": 32,
        "batch_size": 32,
        "num_envs": 2,
        "capacity": 5000,
        "num_batches": 157,
    },
    "torchrl": {
        "total_frames": 500_000,
        "frames_per_batch": 128,
        "batch_size": 256,
        "num_envs": 8,
        "capacity": 100_000,
        "num_batches": 3907,
    },
}

# Fields, and the start of the message.
REFUSED = [
    ({"gamma": 1.5}, "gamma 1.5 must be between 0 and 1"),
    ({"gamma": math.nan}, "gamma nan must be a finite number"),
    ({"learning_rate": math.inf}, "learning_rate inf must be a finite number"),
    ({"learning_rate": "x"}, "learning_rate 'x' must be a number"),
    ({"learning_rate": 0.0}, "learning_rate 0.0 must be above 0"),
    ({"learning_rate": True}, "learning_rate True must be a number"),
    ({"learning_rate": None}, "learning_rate None must be a number"),
    ({"network": "resnet"}, "network 'resnet' must be one of auto, cnn, nature, impala, grid, motion"),
    ({"random_shift": -1}, "random_shift -1 must be 0 or above"),
    ({"random_shift": 2, "pixels": False}, "random_shift 2 needs pixels: set it to 0"),
    ({"mirror": True, "pixels": False}, "mirror True needs pixels: set it to False"),
    ({"total_frames": 0}, "total_frames 0 must be above 0"),
    ({"total_frames": 5000.0}, "total_frames 5000.0 must be a whole number"),
    ({"num_envs": -1}, "num_envs -1 must be above 0"),
    ({"num_envs": True}, "num_envs True must be a whole number"),
    ({"batch_size": 101, "total_frames": 96, "warmup_frames": 0}, "batch_size 101 is larger than total_frames 96"),
    ({"learning_rate": 2**53 + 1}, "learning_rate 9007199254740993 must be below 2**53"),
    ({"capacity": "x"}, "capacity 'x' must be a whole number or None"),
    ({"batch_size": 101, "capacity": 100}, "batch_size 101 is larger than capacity 100"),
    ({"frames_per_batch": 35, "num_envs": 8}, "frames_per_batch 35 must be a multiple of num_envs 8: use 32 or 40"),
    ({"frames_per_batch": 5, "num_envs": 8}, "frames_per_batch 5 must be a multiple of num_envs 8: use 8"),
    ({"frames_per_batch": 64, "capacity": 63, "batch_size": 32}, "frames_per_batch 64 does not fit capacity 63"),
    ({"seed": -1}, "seed -1 must be 0 or above"),
    ({"seed": 2**32}, "seed 4294967296 must be below 2**32"),
    ({"double": "yes"}, "double 'yes' must be true or false"),
    ({"double": 1}, "double 1 must be true or false"),
    ({"tau": 2}, "tau 2.0 must be between 0 and 1"),
    ({"epsilon_start": -0.1}, "epsilon_start -0.1 must be between 0 and 1"),
    ({"epsilon_end": 1.01}, "epsilon_end 1.01 must be between 0 and 1"),
    ({"loss": "l3"}, "loss 'l3' must be one of squared, huber"),
    ({"greedy_params": "both"}, "greedy_params 'both' must be one of online, target, average"),
    ({"max_gradient_norm": 0}, "max_gradient_norm 0.0 must be above 0"),
    ({"max_gradient_norm": "1"}, "max_gradient_norm '1' must be a number"),
    ({"learning_rate_end": -1e-9}, "learning_rate_end -1e-09 must be 0 or above"),
    ({"weight_decay": -1e-5}, "weight_decay -1e-05 must be 0 or above"),
    ({"reward_scale": 0.0}, "reward_scale 0.0 must be above 0"),
    ({"n_steps": 0}, "n_steps 0 must be above 0"),
    ({"frame_stack": 0}, "frame_stack 0 must be above 0"),
    ({"normalisation_frames": 1}, "normalisation_frames 1 must be 0 for none, or at least 2"),
    ({"normalisation_frames": -1}, "normalisation_frames -1 must be 0 or above"),
    ({"epsilon_frames": -1}, "epsilon_frames -1 must be 0 or above"),
    ({"max_episode_steps": 0}, "max_episode_steps 0 must be above 0"),
    ({"capacity": 0}, "capacity 0 must be above 0, or None for the whole run"),
    ({"eval_env": ""}, "eval_env '' must name an environment"),
    ({"colour": True, "pixels": False}, "colour True needs pixels: set it to False"),
    ({"pixels": 1}, "pixels 1 must be true or false"),
    ({"evaluation_episodes": 0}, "evaluation_episodes 0 must be above 0"),
    ({"log_every": -1}, "log_every -1 must be 0 or above"),
    ({"warmup_frames": 5000, "total_frames": 5000}, "warmup_frames 5000 must be below total_frames"),
    ({"env": ""}, "env '' must name an environment"),
    ({"env": 3}, "env 3 must be a string"),
    ({"output": 3}, "output 3 must be a string"),
]


# Defaults that assume nothing about the environment.
NEUTRAL = {
    "pixels": None,
    "network": "auto",
    "value_bias": 0.0,
    "reward_scale": 1.0,
    "random_shift": 0,
    "mirror": False,
    "symmetries_of": None,
    "epsilon_start": 1.0,
    "epsilon_frames": None,
    "capacity": None,
    "frame_stack": None,
    "normalisation_frames": None,
}


def test_the_defaults_are_neutral():
    assert {field: getattr(Config(), field) for field in NEUTRAL} == NEUTRAL


@pytest.mark.parametrize("missing", ["network", "reward_scale", "epsilon_frames", "capacity", "value_bias", "pixels"])
def test_a_field_missing_in_an_older_config_json_has_its_old_default(missing):
    fields = {**PRESETS["cartpole"].to_dict(), missing: OLD_VALUES[missing]}
    config = Config.from_dict(fields)
    del fields[missing]
    assert config_of_file(fields) == config


def test_old_values_exist_for_all_fields():
    assert OLD_VALUES.keys() == Config().to_dict().keys()


@pytest.mark.parametrize(
    ("frames", "duration"), [(None, 200), (0, 1_000), (150, 150), (5_000, 5_000)], ids=["a fifth", "all", "150", "5000"]
)
def test_epsilon_falls_over_the_first_part_of_a_run(frames, duration):
    config = Config(total_frames=990, frames_per_batch=40, warmup_frames=40, epsilon_frames=frames)
    assert config.run_frames == 1_000
    assert config.epsilon_duration == duration


def test_for_another_environment_or_vectors_only_the_symmetries_are_removed():
    preset = dataclasses.replace(PRESETS["cartpole"], gamma=0.5)
    assert preset.for_env("CartPole-v1") == preset
    plain = dataclasses.replace(preset, random_shift=0, mirror=False, symmetries_of=None)
    assert preset.for_env("Acrobot-v1") == dataclasses.replace(plain, env="Acrobot-v1")
    assert preset.for_env("CartPole-v1", pixels=False) == dataclasses.replace(plain, pixels=False)
    vectors = Config(pixels=False)
    assert vectors.for_env("CartPole-v1", pixels=False) == vectors
    assert vectors.for_env("Acrobot-v1") == dataclasses.replace(vectors, env="Acrobot-v1")


def test_symmetries_of_a_preset_are_foreign_to_every_other_environment():
    preset, explicit = PRESETS["cartpole"], Config(mirror=True, random_shift=2)
    assert not preset.has_foreign_symmetries(own_env=False)
    assert preset.has_foreign_symmetries(own_env=True)
    assert dataclasses.replace(preset, env="Acrobot-v1").has_foreign_symmetries(own_env=False)
    for own_env in (False, True):
        assert not explicit.has_foreign_symmetries(own_env)  # set by the user
        assert not preset.without_symmetries().has_foreign_symmetries(own_env)


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1


@pytest.mark.parametrize("name", TUTORIAL)
def test_the_torchrl_presets_equal_the_tutorial(name):
    expected = SHARED | TUTORIAL[name]
    assert {field: getattr(PRESETS[name], field) for field in expected} == expected


@pytest.mark.parametrize(("total_frames", "num_batches"), [(64, 2), (65, 3), (96, 3)])
def test_frames_are_rounded_up_to_whole_batches(total_frames, num_batches):
    config = Config(total_frames=total_frames, frames_per_batch=32, warmup_frames=0)
    assert config.num_batches == num_batches


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_is_unchanged_by_json(name):
    config = dataclasses.replace(PRESETS[name], max_gradient_norm=10.0, output="runs/here", seed=2**32 - 1)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.to_dict().keys() == {field.name for field in dataclasses.fields(Config)}


def test_fields_missing_in_a_dict_have_their_defaults():
    assert Config.from_dict({"gamma": 0.5}) == Config(gamma=0.5)


def test_an_unknown_field_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"^unknown field 'learning_rat': did you mean 'learning_rate'\?$"):
        Config.from_dict({"learning_rat": 1e-3})
    with pytest.raises(ValueError, match=r"^unknown field 'xyzzy'$"):
        Config.from_dict({"xyzzy": 1})


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=[f"{next(iter(f.items()))}" for f, _ in REFUSED])
def test_a_bad_value_is_refused_with_field_and_value(fields, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        Config(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"gamma": 0.0, "tau": 1.0, "epsilon_start": 1.0, "epsilon_end": 0.0},
        {"batch_size": 100, "capacity": 100},
        {"warmup_frames": 4999, "total_frames": 5000},
        {"frames_per_batch": 8, "num_envs": 8},
        {"weight_decay": 0.0, "evaluate_every": 0, "normalisation_frames": 2, "loss": "huber"},
    ],
    ids=str,
)
def test_values_at_the_limits_are_accepted(fields):
    config = Config(**fields)
    assert {name: getattr(config, name) for name in fields} == fields


def test_whole_numbers_become_floats_in_float_fields():
    whole, floats = Config(gamma=1, max_gradient_norm=10), Config(gamma=1.0, max_gradient_norm=10.0)
    assert type(whole.gamma) is type(whole.max_gradient_norm) is float
    assert json.dumps(whole.to_dict()) == json.dumps(floats.to_dict())  # 1 and 1.0 are the same run, also in its file
