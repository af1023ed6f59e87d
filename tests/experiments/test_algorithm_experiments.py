"""Short versions of the comparison of algorithms and of what they cost."""

from importlib import import_module as script

import numpy as np
import pytest
from csv_files import read_rows

import jaxdqn
from jaxdqn.algorithms import ALGORITHMS

pytestmark = [pytest.mark.slow, pytest.mark.several]

TINY = [
    *("--no-pixels", "--total-frames", "256", "--num-envs", "4", "--batch-size", "16", "--capacity", "512"),
    *("--warmup-frames", "64", "--updates-per-batch", "1"),
]


def test_algorithms_trains_each_on_the_same_seeds_and_tables_returns_and_costs(tmp_path, capsys):
    words = ["--only", "dqn", "qr", "--seeds", "0", "1", "--together", "2", "--every", "128", "--episodes", "2"]
    assert {variant.name for variant in script("algorithms").VARIANTS} == set(ALGORITHMS)
    script("algorithms").main([*words, "--output", str(tmp_path), "--", *TINY])
    rows = read_rows(tmp_path / "algorithms_table.csv")
    assert [row["algorithm"] for row in rows] == ["dqn", "qr"]
    assert rows[0]["arithmetic"] == "1.00"
    assert float(rows[1]["arithmetic"]) > 1.2
    assert "| dqn | 2 |" in capsys.readouterr().out
    assert (tmp_path / "algorithms.png").stat().st_size > 10_000
    with pytest.raises(SystemExit) as stop:
        script("algorithms").main(["--task", "chess"])
    assert stop.value.code == 2


def test_minatar_tables_returns_and_seconds_and_repeats_no_run(tmp_path, capsys):
    tiny = "--total-frames 256 --num-envs 4 --batch-size 8 --capacity 128 --warmup-frames 64 --updates-per-batch 1"
    words = ["--task", "family", "--only", "breakout, dqn", "--seeds", "0", "1", "--together", "2"]
    words += ["--every", "128", "--episodes", "1", "--output", str(tmp_path), "--", *tiny.split()]
    script("minatar_games").main(words)
    first = capsys.readouterr().out
    rows = read_rows(tmp_path / "minatar_games_table.csv")
    assert [(row["game"], row["algorithm"], row["frames"]) for row in rows] == [("breakout", "dqn", "256")]
    evaluations = read_rows(tmp_path / "minatar_games.csv")
    assert len(evaluations) == 4  # two seeds, two evaluations
    assert all(float(row["mean"]) >= 0 < float(row["seconds"]) for row in evaluations)
    script("minatar_games").main(words)
    second = capsys.readouterr().out
    assert "frame 256" in first
    assert "frame 256" not in second
    assert first.splitlines()[-3:] == second.splitlines()  # the table


def test_minatar_has_each_algorithm_and_game_and_seeds_that_chose_nothing():
    minatar = script("minatar_games")
    assert {variant.name.split(", ")[1] for variant in minatar.VARIANTS["family"]} == set(ALGORITHMS)
    assert {variant.name.split(", ")[0] for variant in minatar.VARIANTS["games"]} == set(minatar.GAMES)
    for task, variants in minatar.VARIANTS.items():
        for variant in variants:
            config = jaxdqn.Config(**{**minatar.TASKS[task].to_dict(), **variant.changes})
            assert config.frames_per_batch == 4 * config.updates_per_batch
            rainbow = variant.name.endswith("rainbow")
            assert (config.n_steps, config.dueling) == ((3, True) if rainbow else (1, False))


def test_the_cost_of_the_first_config_is_1_and_a_larger_batch_costs_more():
    config = jaxdqn.Config(
        pixels=False, num_envs=2, frames_per_batch=8, capacity=200, total_frames=200, warmup_frames=8
    )
    configs = {"small": config, "large": jaxdqn.Config(**{**config.to_dict(), "batch_size": 128})}
    found = script("shared.update_costs").costs(configs, jaxdqn.ObsSpec((4,), np.float32), 2, 2)
    assert found["small"] == (1.0, 1.0)
    assert found["large"].operations > 1.5
    assert found["large"].time > 0


def test_prioritised_sampling_of_the_benchmark_draws_as_flashbax_does():
    pytest.importorskip("flashbax", reason="extra bench")
    costs = script("algorithm_costs")
    for make in (costs._ours, costs._flashbax):
        assert np.all(np.isfinite(make(1_000)()))


def test_algorithm_costs_tables_the_costs_of_each_algorithm(tmp_path, monkeypatch, capsys):
    costs = script("algorithm_costs")
    tiny = {"pixels": False, "num_envs": 2, "frames_per_batch": 8, "capacity": 200, "total_frames": 200}
    monkeypatch.setattr(costs, "TUTORIAL", jaxdqn.Config(**tiny, warmup_frames=8, updates_per_batch=2, batch_size=8))
    monkeypatch.setattr(costs, "FRAMES", jaxdqn.ObsSpec((4,), np.float32))
    monkeypatch.setattr(costs, "ALGORITHMS", {name: ALGORITHMS[name] for name in ("dqn", "iqn")})
    costs.main(["--only", "algorithms", "--rounds", "1", "--output", str(tmp_path)])
    rows = {row["what"]: row for row in read_rows(tmp_path / "algorithm_costs.csv")}
    assert list(rows) == ["dqn", "iqn", "iqn, 64 fractions"]
    assert rows["dqn"]["arithmetic"] == "1.00"
    assert 1 < float(rows["iqn"]["arithmetic"]) < float(rows["iqn, 64 fractions"]["arithmetic"])
    assert "| dqn | 1.00 | 1.00 | an update of dqn |" in capsys.readouterr().out
