"""Defaults for other environments: neutral settings, no symmetries of CartPole, replay sized by the run."""

import dataclasses
import json

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from image_envs import RandomObs, box
from whole_runs import PIXELS

import jaxdqn
from jaxdqn.cli.main import main
from jaxdqn.cli.train_flags import parse_config
from jaxdqn.config import Config
from jaxdqn.envs.functional.cartpole import make_cartpole
from jaxdqn.loops.assemble import make_device_run
from jaxdqn.networks.architectures import make_network
from jaxdqn.networks.dueling import DuelingCNN, DuelingMLP
from jaxdqn.observations import ObsSpec, spec_from
from jaxdqn.presets import PRESETS
from jaxdqn.replay.capacity import row_bytes, with_capacity

# The preset cartpole, as small as possible; its symmetries are for CartPole-v1.
CARTPOLE = dataclasses.replace(PIXELS, symmetries_of="CartPole-v1")


@pytest.mark.parametrize(
    ("config", "env_fn", "kept"),
    [
        (CARTPOLE, lambda: RandomObs(box((48, 40, 3))), False),
        (dataclasses.replace(CARTPOLE, env="Acrobot-v1"), None, False),
        (CARTPOLE, None, True),  # its own environment
        (dataclasses.replace(CARTPOLE, symmetries_of=None), lambda: RandomObs(box((48, 40, 3))), True),  # set again
    ],
    ids=["env_fn", "another id", "its own", "set again"],
)
def test_a_preset_drops_its_symmetries_for_another_environment_with_a_note(config, env_fn, kept, monkeypatch):
    trained, said = [], []

    def set_up_run(config, *_, **__):
        trained.append(config)
        raise RuntimeError("far enough")

    monkeypatch.setattr("jaxdqn.training.run_steps.set_up_run", set_up_run)
    with pytest.raises(RuntimeError, match="far enough"):
        next(jaxdqn.train(config, env_fn=env_fn, say=said.append))
    assert (trained[0].random_shift, trained[0].mirror) == ((2, True) if kept else (0, False))
    assert [line[:45] for line in said] == ([] if kept else ["random_shift 2 and mirror True are for CartPo"])


def test_a_device_run_drops_the_symmetries_of_another_environment(monkeypatch):
    found = []

    def agent_of(config, **how):
        found.append(config)
        raise StopIteration

    monkeypatch.setattr("jaxdqn.loops.assemble.agent_of", agent_of)
    config = dataclasses.replace(CARTPOLE, normalisation_frames=0)
    own = make_cartpole(pixels=True, frame_size=44)
    for env in (None, own, jaxdqn.make_ball(frame_size=44), make_cartpole(pixels=True, frame_size=44, max_steps=9)):
        with pytest.raises(StopIteration):
            make_device_run(config, env=env)
    assert [each.mirror for each in found] == [True, True, False, False]
    assert [each.random_shift for each in found] == [2, 2, 0, 0]


@pytest.mark.parametrize(
    ("flags", "preset", "expected"),
    [
        ("", None, PRESETS["cartpole"]),
        ("--seed 3", None, dataclasses.replace(PRESETS["cartpole"], seed=3)),
        ("--env Acrobot-v1", None, Config(env="Acrobot-v1")),
        ("--env CartPole-v1", None, Config()),
        ("--env Acrobot-v1 --mirror --pixels", None, Config(env="Acrobot-v1", mirror=True, pixels=True)),
        ("--env Acrobot-v1 --no-pixels", None, Config(env="Acrobot-v1", pixels=False)),
        ("--env Acrobot-v1 --pixels None", None, Config(env="Acrobot-v1")),
        ("--env=Acrobot-v1", None, Config(env="Acrobot-v1")),
        ("--env Acrobot-v1", "cartpole", PRESETS["cartpole"].for_env("Acrobot-v1")),
        ("--env CartPole-v1", "cartpole", PRESETS["cartpole"]),
        ("--no-pixels", None, PRESETS["cartpole"].for_env("CartPole-v1", pixels=False)),
    ],
)
def test_defaults_are_neutral_with_env_and_those_of_the_preset_cartpole_without_it(flags, preset, expected):
    assert parse_config(flags.split(), preset and PRESETS[preset]) == expected


@pytest.mark.parametrize(
    ("flags", "preset", "capacity"),
    [
        ("--total-frames 1000000", "cartpole", 1_000_000),
        ("--total-frames 9000", "cartpole", 9_024),  # whole batches
        ("--total-frames 1000000 --capacity 5000", "cartpole", 5_000),
        ("--total-frames 9000", "torchrl-demo", 9_024),
        ("--total-frames 1000000", "torchrl", 100_000),  # smaller than its run, on purpose
        ("", "cartpole", 15_000),
        ("--env Acrobot-v1 --total-frames 70000", None, 70_016),
    ],
)
def test_replay_holds_the_whole_run_unless_a_capacity_is_set(flags, preset, capacity):
    config = parse_config(flags.split(), preset and PRESETS[preset])
    assert with_capacity(config, ObsSpec((4,), np.float32)).capacity == capacity


def test_replay_takes_at_most_half_of_free_memory():
    obs = ObsSpec((64, 64), np.uint8, 4)
    config, row = Config(total_frames=100_000), row_bytes((64, 64), np.uint8)
    assert with_capacity(config, obs, 10**12).capacity == 100_000
    assert with_capacity(config, obs, 20_000 * row).capacity == 10_000
    assert with_capacity(config, obs, 20_000 * row, copies=2).capacity == 5_000
    assert with_capacity(config, obs, 0).capacity == 8 * (4 + 3 + 1)  # the smallest that can be sampled from
    assert with_capacity(dataclasses.replace(config, capacity=777), obs, 0).capacity == 777


@pytest.mark.slow
def test_a_resume_uses_the_capacity_chosen_at_the_start(tmp_path, monkeypatch):
    config = Config(total_frames=512, warmup_frames=64, output=str(tmp_path / "run"), checkpoint_every=256)
    with monkeypatch.context() as patch:
        patch.setattr("jaxdqn.loops.assemble.free_bytes", lambda *of: 400 * 2 * row_bytes((2,), np.float32))
        for step in jaxdqn.train(config, env_fn=probes.Delayed):
            if step.progress.frames == 256:
                break
    assert json.loads((tmp_path / "run" / "config.json").read_text())["capacity"] == 400
    *_, end = jaxdqn.resume(tmp_path / "run", env_fn=probes.Delayed, say=lambda note: None)
    assert end.progress.state.replay.rows.action.shape == (50, 8)


IMAGES = [((64, 64), 4, "cnn"), ((84, 84, 4), 1, "cnn"), ((36, 40), 4, "cnn"), ((35, 80, 5), 1, "grid")]
IMAGES += [((10, 10, 6), 1, "grid"), ((3, 9), 2, "grid"), ((2, 9, 3), 1, None), ((1, 1, 4), 1, None)]


@pytest.mark.parametrize(("shape", "stack", "name"), IMAGES, ids=str)
@pytest.mark.parametrize("num_actions", [2, 18])
def test_the_default_network_depends_on_the_size_of_the_image(shape, stack, name, num_actions):
    obs = ObsSpec(shape, np.uint8, stack)
    network = make_network(Config(value_bias=3.0), num_actions, obs)
    assert isinstance(network, DuelingCNN if name else DuelingMLP)
    if name:
        assert network == make_network(Config(network=name, value_bias=3.0), num_actions, obs)
        assert not network.moments
        assert network.motion_gain is None
    params = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, *obs.seen_shape), np.float32))
    values = jax.eval_shape(network.apply, params, np.zeros((5, *obs.seen_shape), np.float32))
    assert values.q_values.shape == (5, num_actions)
    assert network.value_bias == 3.0


def test_an_image_too_small_for_the_configured_network_is_refused():
    with pytest.raises(
        ValueError, match=r"an image of \(10, 10, 4\) is too small for network 'nature': use at least 36"
    ):
        make_network(Config(network="nature"), 2, ObsSpec((10, 10, 4), np.uint8, 1))


def test_the_motion_network_takes_differences_of_frames_with_several_channels():
    stack = jnp.arange(2 * 9, dtype=jnp.float32).reshape(2, 9) ** 2
    found = jaxdqn.frame_differences(stack, 4.0, channels=3)
    expected = [4 * (stack[:, 3:6] - stack[:, :3]), 4 * (stack[:, 6:] - stack[:, 3:6]), stack[:, 6:]]
    np.testing.assert_array_equal(found, np.concatenate(expected, axis=1))
    obs = ObsSpec((40, 40, 3), np.uint8, 2)
    assert make_network(Config(network="motion"), 2, obs).channels == 3


def test_compute_dtype_is_refused_for_a_network_without_convolutions():
    vectors = ObsSpec((4,), np.float32)
    with pytest.raises(ValueError, match="compute_dtype bfloat16 needs a network with convolutions"):
        make_network(Config(compute_dtype="bfloat16"), 2, vectors)


@pytest.mark.parametrize(
    ("pixels", "shape", "dtype", "stack"),
    [
        (True, (64, 64), np.uint8, 4),
        (None, (64, 64), np.uint8, 4),
        (None, (10, 10, 3), np.uint8, 1),
        (None, (4,), np.float32, None),
        (None, (4, 4), np.float32, None),
        (False, (64, 64), np.uint8, None),
    ],
)
def test_spec_from_chooses_the_stack_by_shape_and_dtype(pixels, shape, dtype, stack):
    assert spec_from(Config(pixels=pixels), shape, dtype).stack == stack
    if stack is not None:
        assert spec_from(Config(pixels=pixels, frame_stack=2), shape, dtype).stack == 2


@pytest.mark.slow
def test_the_default_folder_is_named_after_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    gym.register("mine/Chain-v3", entry_point=lambda **_: probes.TerminatingChain())
    try:
        for _ in range(2):
            words = ["--total-frames", "128", "--warmup-frames", "32", "--batch-size", "8"]
            with pytest.raises(SystemExit) as stop:
                main(["train", "--env", "mine/Chain-v3", *words])
            assert stop.value.code == 0
    finally:
        del gym.registry["mine/Chain-v3"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["Chain-v3", "Chain-v3-2"]
    capsys.readouterr()
