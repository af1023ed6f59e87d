"""The seeds that chose a preset's settings are never those that show it (`experiments/seeds.toml`)."""

import tomllib
from importlib import import_module as script
from pathlib import Path

import pytest
from csv_files import rows_of

from jaxdqn.presets import PRESETS

ROOT = Path(__file__).parent.parent.parent


def seeds_of(text):
    """The numbers of "0-2, 7"."""
    ranges = [part.strip().split("-") for part in text.split(",") if part.strip()]
    return {seed for ends in ranges for seed in range(int(ends[0]), int(ends[-1]) + 1)}


TABLE = tomllib.loads((ROOT / "experiments" / "seeds.toml").read_text())
CHOSEN = {name: seeds_of(entry["chosen"]) for name, entry in TABLE.items()}
SHOWN = {name: seeds_of(entry["shown"]) for name, entry in TABLE.items()}


def seeds_in(name):
    return {int(row["seed"]) for row in rows_of(name)}


def test_ranges_are_read():
    assert seeds_of("0-2, 7") == {0, 1, 2, 7}
    assert seeds_of("") == set()


def test_every_preset_is_listed():
    assert set(TABLE) == {*PRESETS, "neutral"}
    assert all(entry.keys() == {"chosen", "shown"} for entry in TABLE.values())


@pytest.mark.parametrize("name", list(TABLE))
def test_no_seed_both_chooses_and_shows_a_preset(name):
    assert not CHOSEN[name] & SHOWN[name]


def test_cartpole_is_chosen_and_shown_on_these_seeds():
    for name, seeds in (("cartpole_levers", CHOSEN["cartpole"]), ("score_preset", SHOWN["cartpole"])):
        assert set(script(name).SEEDS) <= seeds
    for name in ("algorithms", "n_step_ends"):
        assert set(script(name).SEEDS) <= SHOWN["cartpole"]


@pytest.mark.parametrize("name", ["cartpole", "cartpole_host", "algorithms_cartpole"])
def test_results_of_cartpole_are_of_seeds_that_show_it(name):
    assert seeds_in(name) <= SHOWN["cartpole"]


def test_the_results_of_the_preset_cartpole_are_of_all_its_seeds():
    assert seeds_in("cartpole") == set(script("score_preset").SEEDS)


def test_minatar_shows_its_preset_on_its_seeds():
    for seeds in script("minatar_games").SEEDS.values():
        assert set(seeds) <= SHOWN["minatar"]


def test_other_environments_show_the_neutral_defaults_on_their_seeds():
    seeds = {seed for task in script("other_environments").TASKS for seed in task.seeds}
    assert seeds <= SHOWN["neutral"]
    assert seeds_in("other_environments") <= SHOWN["neutral"]
