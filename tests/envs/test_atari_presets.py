"""The presets of Atari games: the numbers of their sources, networks, runs."""

import dataclasses

import jax
import numpy as np
import pytest
from running import command

import jaxdqn
from jaxdqn.envs.gymnasium.building import make_env_fn_of
from jaxdqn.networks.architectures import make_network
from jaxdqn.presets import PRESETS

DOPAMINE = {"sticky_actions": 0.25, "noop_max": None, "fire_reset": None, "terminal_on_life_loss": False}
SOURCES = {
    # CleanRL, cleanrl/dqn_atari.py
    "atari": {
        **{"sticky_actions": 0, "noop_max": 30, "fire_reset": True, "terminal_on_life_loss": True},
        **{"total_frames": 10_000_000, "warmup_frames": 80_000, "target every": 1_000, "update every": 4, "n_steps": 1},
        **{"learning_rate": 1e-4, "adam_epsilon": 1e-8, "epsilon_end": 0.01, "epsilon_frames": 1_000_000},
    },
    # Dopamine, dqn.gin, full_rainbow.gin, DER.gin
    "atari-sticky": {
        **DOPAMINE,
        **{"total_frames": 50_000_000, "warmup_frames": 20_000, "target every": 8_000, "update every": 4, "n_steps": 1},
        **{"learning_rate": 6.25e-5, "adam_epsilon": 1.5e-4, "epsilon_end": 0.01, "epsilon_frames": 270_000},
    },
    "rainbow-atari": {
        **DOPAMINE,
        **{"total_frames": 50_000_000, "warmup_frames": 20_000, "target every": 8_000, "update every": 4, "n_steps": 3},
        **{"learning_rate": 6.25e-5, "adam_epsilon": 1.5e-4},
    },
    "der": {
        **{**DOPAMINE, "sticky_actions": 0, "noop_max": 29, "terminal_on_life_loss": True},
        **{"total_frames": 100_000, "warmup_frames": 1_600, "target every": 2_000, "update every": 1, "n_steps": 10},
        **{"learning_rate": 1e-4, "adam_epsilon": 1.5e-4},
    },
    # Young and Tian, examples/dqn.py, but for the length and the updates
    "minatar": {
        **{"total_frames": 1_000_000, "warmup_frames": 5_000, "target every": 1_000, "update every": 4, "n_steps": 1},
        **{"learning_rate": 2.5e-4, "epsilon_end": 0.1, "epsilon_frames": 105_000, "capacity": 100_000},
    },
}
ATARI = [name for name in SOURCES if name != "minatar"]


@pytest.mark.parametrize("name", SOURCES)
def test_presets_have_the_numbers_of_their_sources(name):
    config = PRESETS[name]
    every = config.frames_per_batch / config.updates_per_batch
    found = {**config.to_dict(), "target every": config.target_period * every, "update every": every}
    assert {field: found[field] for field in SOURCES[name]} == SOURCES[name]
    assert config.learning_rate_end == config.learning_rate
    assert (config.batch_size, config.gamma, config.max_gradient_norm) == (32, 0.99, None)
    rainbow = name in ("rainbow-atari", "der")
    assert jaxdqn.ALGORITHMS["rainbow" if rainbow else "dqn"].items() <= config.to_dict().items()
    assert config.dueling == rainbow
    if name in ATARI:
        assert config.clip_rewards
        assert (config.frame_size, config.frame_stack, config.frame_skip) == (84, 4, 4)
        assert config.planned_capacity == min(1_000_000, config.total_frames)
    if rainbow:
        assert config.support == (-10, 10)
        assert (config.priority_alpha, config.priority_beta, config.priority_beta_end) == (0.5, 0.5, 0.5)
        assert config.noisy_sigma == 0.1


@pytest.mark.parametrize("name", ATARI)
def test_games_of_a_preset_differ_from_seed_to_seed(name):
    pytest.importorskip("ale_py", reason="extra atari")
    env = make_env_fn_of(PRESETS[name])()
    games = []
    for seed in range(3):
        frames = [env.reset(seed=seed)[0], *(env.step(2 + step % 2)[0] for step in range(60))]
        games.append(np.array(frames).tobytes())
    env.close()
    assert len(set(games)) == 3


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("atari", 3136 * 512 + 512 + 512 * 6 + 6),
        ("rainbow-atari", 2 * (2 * (3136 * 512 + 512) + 512 * 7 * 51 + 7 * 51)),  # each noisy weight has a deviation
    ],
)
def test_their_networks_are_natures(name, heads):
    images = np.zeros((1, 84, 84, 4), np.float32)
    shapes = jax.eval_shape(make_network(PRESETS[name], 6).init, jax.random.key(0), images)
    convolutions = 8 * 8 * 4 * 32 + 32 + 4 * 4 * 32 * 64 + 64 + 3 * 3 * 64 * 64 + 64
    assert sum(x.size for x in jax.tree.leaves(shapes)) == convolutions + heads


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "der" else pytest.mark.long) for name in ATARI]
)
def test_a_run_of_a_preset_learns_and_plays(name, tmp_path):
    pytest.importorskip("ale_py", reason="extra atari")
    fields = {"total_frames": 96 if name != "der" else 68, "warmup_frames": 64, "frame_size": 44, "log_every": 32}
    fields |= {"evaluation_episodes": 1, "max_episode_steps": 8}
    flags = [word for field, value in fields.items() for word in (f"--{field.replace('_', '-')}", value)]
    run = tmp_path / "run"
    assert command("train", name, "--env", "ALE/Breakout-v5", *flags, "--output", run) == 0
    trained = jaxdqn.load(run)
    fields |= {
        "env": "ALE/Breakout-v5",
        "capacity": trained.config.num_batches * trained.config.frames_per_batch,
        "output": str(run),
    }
    assert trained.config == dataclasses.replace(PRESETS[name], **fields)
    assert 0 <= trained.evaluate(1, max_episode_steps=4).mean <= 4
