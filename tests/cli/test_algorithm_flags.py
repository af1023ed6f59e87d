"""`--algorithm` and its pieces: preset < algorithm < flags, and combinations without effect are refused in one line."""

import dataclasses
from typing import get_args, get_type_hints

import pytest
from running import command

import jaxdqn
from jaxdqn.algorithms import ALGORITHMS, PIECES, with_algorithm
from jaxdqn.cli.train_flags import AlgorithmFlag, parse_config
from jaxdqn.config import Config
from jaxdqn.presets import PRESETS


def pieces_of(config):
    return {name: getattr(config, name) for name in PIECES}


@pytest.mark.parametrize("preset", ["cartpole", "torchrl"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_sets_its_pieces_and_nothing_else(name, preset):
    config = parse_config(["--algorithm", name], PRESETS[preset])
    assert pieces_of(config) == ALGORITHMS[name]
    assert config == with_algorithm(PRESETS[preset], name)
    others = dataclasses.replace(config, **pieces_of(PRESETS[preset]))
    assert others == PRESETS[preset]


def test_the_flag_takes_every_algorithm():
    choices, none = get_args(get_type_hints(AlgorithmFlag)["algorithm"])
    assert (get_args(choices), none) == (tuple(ALGORITHMS), type(None))
    with pytest.raises(ValueError, match="algorithm 'ppo' must be one of dqn, double"):
        with_algorithm(Config(), "ppo")


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ("--algorithm dqn", {"double": False, "prioritized": False}),
        ("--algorithm dqn --double", {"double": True, "prioritized": False}),
        ("--double --algorithm dqn", {"double": True, "prioritized": False}),  # the order does not matter
        ("--algorithm rainbow --no-noisy", {**ALGORITHMS["rainbow"], "noisy": False}),
        ("--algorithm rainbow --distribution none", {**ALGORITHMS["rainbow"], "distribution": "none"}),
        ("--algorithm c51 --atoms 21 --v-min 0", {**ALGORITHMS["c51"], "atoms": 21, "v_min": 0.0}),
        ("--algorithm m-iqn --iqn-taus 64", {**ALGORITHMS["m-iqn"], "iqn_taus": 64}),
        ("--no-prioritized", {"prioritized": False}),
        ("--prioritized --priority-alpha 0.5", {"prioritized": True, "priority_alpha": 0.5}),
        ("--distribution qr --quantiles 32", {"distribution": "qr", "quantiles": 32}),
        ("--munchausen --no-double", {"munchausen": True, "double": False}),
        ("--target-period 100", {"target_period": 100}),
        ("--layer-norm --adam-epsilon 1.5e-4", {"layer_norm": True, "adam_epsilon": 1.5e-4}),
        ("--epsilon-schedule exponential", {"epsilon_schedule": "exponential"}),
    ],
)
def test_flags_override_the_algorithm_which_overrides_the_preset(flags, changes):
    assert parse_config(flags.split(), PRESETS["cartpole"]) == dataclasses.replace(PRESETS["cartpole"], **changes)


def test_numbers_of_a_preset_go_with_the_piece_that_an_algorithm_turns_off():
    preset = dataclasses.replace(with_algorithm(Config(), "rainbow"), noisy_sigma=0.1, atoms=11, priority_alpha=0.5)
    config = parse_config(["--algorithm", "double"], preset)
    assert config == Config()
    kept = parse_config(["--algorithm", "c51"], preset)
    assert (kept.atoms, kept.noisy_sigma, kept.priority_alpha) == (11, 0.5, 0.6)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--algorithm ppo", "--algorithm"),
        ("--munchausen", "munchausen True has no greedy next action for double to choose: set double to False"),
        ("--algorithm munchausen --double", "munchausen True has no greedy next action"),
        ("--algorithm munchausen --distribution c51", "munchausen True needs distribution none, qr or iqn, not c51"),
        ("--atoms 21", "atoms 21 needs distribution c51 or hl-gauss: set that, or this to 51"),
        ("--algorithm qr --atoms 51", "--atoms has no effect without distribution c51 or hl-gauss"),
        ("--algorithm iqn --quantiles 200", "--quantiles has no effect without distribution qr"),
        ("--iqn-taus 8", "--iqn-taus has no effect without distribution iqn"),
        ("--no-prioritized --priority-beta 0.4", "--priority-beta has no effect without prioritized: add it"),
        ("--algorithm rainbow --no-prioritized --priority-alpha 0.5", "priority_alpha 0.5 needs prioritized: set that"),
        ("--noisy-sigma 0.1", "noisy_sigma 0.1 needs noisy: set that, or this to 0.5"),
        ("--munchausen-tau 0.03", "--munchausen-tau has no effect without munchausen"),
        ("--algorithm c51 --loss huber", "--loss has no effect with distribution c51, which has its own loss"),
        ("--algorithm c51 --value-bias 1", "--value-bias has no effect with distribution c51"),
        ("--target-period 10 --tau 0.1", "--tau has no effect with target_period"),
        ("--noisy --epsilon-end 0.1", "--epsilon-end has no effect with noisy, which explores by itself"),
        ("--epsilon-schedule constant --epsilon-start 1", "--epsilon-start has no effect with epsilon_schedule"),
        ("--epsilon-schedule exponential --epsilon-end 0", "epsilon_end 0.0 must be above 0 with epsilon_schedule"),
        ("--algorithm c51 --v-min 3 --v-max 2", "v_min 3.0 must be below v_max 2"),
        ("--algorithm c51 --gamma 1", "v_min None has no default with gamma 1: set it, and v_max"),
        ("--algorithm c51 --atoms 1", "atoms 1 must be at least 2"),
        ("--algorithm rainbow --priority-beta 2", "priority_beta 2.0 must be between 0 and 1"),
        ("--target-period 0", "target_period 0 must be above 0, or None for tau"),
        ("--noisy --noisy-sigma 0", "noisy_sigma 0.0 must be above 0"),
    ],
)
def test_combinations_without_effect_and_wrong_numbers_are_refused_in_one_line(flags, says, capsys, tmp_path):
    assert command("train", *flags.split(), "--output", str(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"atoms": 21}, "atoms 21 needs distribution c51 or hl-gauss: set that, or this to 51"),
        ({"noisy_sigma": 0.1}, "noisy_sigma 0.1 needs noisy: set that, or this to 0.5"),
        ({"munchausen": True}, "munchausen True has no greedy next action"),
        ({"distribution": "c52"}, "distribution 'c52' must be one of none, c51"),
    ],
)
def test_a_config_refuses_the_same(fields, says):
    with pytest.raises(ValueError, match=says):
        Config(**fields)


@pytest.mark.parametrize(
    ("fields", "support"),
    [
        ({"gamma": 0.9}, (-10.0, 10.0)),
        ({"gamma": 0.9, "reward_scale": 0.5}, (-5.0, 5.0)),
        ({"gamma": 0.9, "v_min": 0.0}, (0.0, 10.0)),  # 0 is a bound like any other
        ({"gamma": 1.0, "v_min": -1.0, "v_max": 0.0}, (-1.0, 0.0)),
    ],
)
def test_the_default_support_follows_the_scale_of_rewards_and_gamma(fields, support):
    assert Config(distribution="c51", **fields).support == pytest.approx(support)


def test_objective_and_loss_do_not_go_with_what_they_replace():
    how = {"num_actions": 2, "obs_shape": (4,), "obs_dtype": "float32"}
    with pytest.raises(ValueError, match="loss has no effect with an objective"):
        jaxdqn.make_agent(Config(), **how, loss=jaxdqn.huber_loss, objective=jaxdqn.q_learning())
    with pytest.raises(ValueError, match="loss needs plain or double Q-learning"):
        jaxdqn.make_agent(Config(distribution="qr"), **how, loss=jaxdqn.huber_loss)
    with pytest.raises(ValueError, match="needs a distribution and the network returns none"):
        jaxdqn.make_agent(Config(), **how, objective=jaxdqn.quantile_q_learning())
