"""Short versions of the benchmarks that measure checkpoints and links."""

from importlib import import_module as script

import pytest
from csv_files import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.several]


def test_checkpoint_cost_measures_two_contents(tmp_path, capsys):
    script("checkpoint_cost").main(["--rows", "600", "--new-rows", "32", "--output", str(tmp_path)])
    pictures, noise = read_rows(tmp_path / "checkpoint_cost.csv")
    assert pictures["content"] == "frames of CartPole"
    assert float(pictures["on disk"].split()[0]) < float(noise["on disk"].split()[0])
    assert all(
        float(row[name].split()[0]) > 0 for row in (pictures, noise) for name in ("first", "verified and loaded")
    )
    assert "| frames of CartPole | 2 MB |" in capsys.readouterr().out
    for words in (["--rows", "0"], ["--rows", "10"], ["--new-rows", "5"]):
        with pytest.raises(SystemExit) as stop:
            script("checkpoint_cost").main(words)
        assert stop.value.code == 2


def test_scaling_measures_a_process_and_calculates_links(tmp_path, monkeypatch, capsys):
    scaling = script("scaling")
    monkeypatch.setattr(scaling.os, "sched_getaffinity", lambda _: {0, 1})
    seconds = {("update", False): 0.010, ("update", True): 0.020}
    monkeypatch.setattr(
        scaling, "measure", lambda *_, joined: {"update": seconds["update", joined], "all_reduce": 0.005}
    )
    scaling.main(["--processes", "2", "--presets", "cartpole", "--output", str(tmp_path)])
    assert len(read_rows(tmp_path / "scaling.csv")) == 2 * len(scaling.LINKS)
    (row,) = read_rows(tmp_path / "scaling_measured.csv")
    assert (row["2 joined"], row["efficiency"], row["expected of the sum"]) == ("20.0 ms", "0.50", "0.67")
    assert "| `cartpole` | 10.0 ms | 10.0 ms |" in capsys.readouterr().out


def test_one_process_times_updates_and_all_reduces():
    found = script("scaling").measure("cartpole", 1, 2, joined=False)
    assert 0 < found["all_reduce"] < found["update"] < 60
