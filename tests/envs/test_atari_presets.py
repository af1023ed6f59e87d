"""The presets of Atari games: the numbers of their sources, networks, runs."""

import dataclasses

import jax
import numpy as np
import pytest
from running import command

import jaxdqn
from jaxdqn.networks.architectures import make_network
from jaxdqn.presets import PRESETS

SOURCES = {
    # CleanRL, cleanrl/dqn_atari.py
    "atari": {"total": 10_000_000, "sticky": 0, "warm-up": 80_000, "target": 1_000, "every": 4, "n": 1, "rate": 1e-4},
    # Dopamine, dqn.gin, full_rainbow.gin, DER.gin
    "atari-sticky": {
        **{"total": 200 * 250_000, "sticky": 0.25, "warm-up": 20_000, "target": 8_000, "every": 4, "n": 1},
        "rate": 6.25e-5,
    },
    "rainbow-atari": {
        **{"total": 200 * 250_000, "sticky": 0.25, "warm-up": 20_000, "target": 8_000, "every": 4, "n": 3},
        "rate": 6.25e-5,
    },
    "der": {"total": 100_000, "sticky": 0, "warm-up": 1_600, "target": 2_000, "every": 1, "n": 10, "rate": 1e-4},
}


@pytest.mark.parametrize("name", SOURCES)
def test_presets_have_the_numbers_of_their_sources_in_steps(name):
    config = PRESETS[name]
    every = config.frames_per_batch / config.updates_per_batch
    assert {
        "total": config.total_frames,
        "sticky": config.sticky_actions,
        "warm-up": config.warmup_frames,
        "target": config.target_period * every,
        "every": every,
        "n": config.n_steps,
        "rate": config.learning_rate,
    } == SOURCES[name]
    assert config.learning_rate_end == config.learning_rate
    assert (config.batch_size, config.frame_size, config.frame_stack, config.frame_skip) == (32, 84, 4, 4)
    algorithm = "rainbow" if name in ("rainbow-atari", "der") else "dqn"
    assert jaxdqn.ALGORITHMS[algorithm].items() <= config.to_dict().items()
    if algorithm == "rainbow":
        assert config.support == (-10, 10)
        assert (config.priority_alpha, config.priority_beta, config.priority_beta_end) == (0.5, 0.5, 0.5)


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
    "name", [pytest.param(name, marks=[] if name == "der" else pytest.mark.long) for name in SOURCES]
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
