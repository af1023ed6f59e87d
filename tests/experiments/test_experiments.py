"""Short versions of the experiments on the host."""

import json
import re
import sys
from importlib import import_module as script

import pytest
from csv_files import read_rows

import jaxdqn

pytestmark = pytest.mark.slow

TINY = [
    *("--no-pixels", "--total-frames", "256", "--num-envs", "4", "--batch-size", "16", "--capacity", "512"),
    *("--warmup-frames", "64", "--updates-per-batch", "1", "--evaluate-every", "128", "--evaluation-episodes", "4"),
]


@pytest.mark.several
def test_other_environments_scores_runs_with_neutral_defaults_and_trains_none_twice(tmp_path, capsys):
    main = script("other_environments").main
    words = ["--envs", "CartPole-v1", "--seeds", "0", "1", "--total-frames", "1500", "--episodes", "2"]
    for _ in range(2):
        main([*words, "--output", str(tmp_path)])
        out = capsys.readouterr().out
        returns = r"\d+\.\d ± \d+\.\d"
        assert re.search(rf"\| CartPole-v1 \| 1,500 \| 475 \| 0, 1 \| {returns}, {returns} \| \d+ \|", out)
    assert "frame" not in out.split("env CartPole-v1")[0]  # nothing was trained the second time
    rows = read_rows(tmp_path / "other_environments.csv")
    assert [(row["env"], row["seed"], row["episodes"]) for row in rows] == [
        ("CartPole-v1", "0", "2"),
        ("CartPole-v1", "1", "2"),
    ]
    fields = json.loads((tmp_path / "CartPole-v1-1" / "config.json").read_text())
    wanted = jaxdqn.Config(total_frames=1500, seed=1, capacity=1504, output=str(tmp_path / "CartPole-v1-1"))
    assert fields == json.loads(json.dumps(wanted.to_dict()))
    assert (tmp_path / "curves.png").stat().st_size > 5_000


@pytest.mark.several
def test_score_preset_scores_each_seed_and_trains_none_twice(tmp_path, capsys):
    main = script("score_preset").main
    words = ["--seeds", "0", "1", "--episodes", "3", "--output", str(tmp_path)]
    main([*words, "--", *TINY])
    rows = read_rows(tmp_path / "cartpole.csv")
    assert [row["seed"] for row in rows] == ["0", "1"]
    for row in rows:
        run = tmp_path / f"seed{row['seed']}"
        for which in ("best", "last"):
            mean = jaxdqn.load(run, which).evaluate(3, seed=0).mean
            assert float(row[f"{which}_mean"]) == pytest.approx(mean, abs=0.05)
        assert int(row["best_frames"]) == json.loads((run / "checkpoints" / "index.json").read_text())["best"]
    evaluations = read_rows(tmp_path / "cartpole_evaluations.csv")
    for seed in ("0", "1"):
        means = [float(row["screening_mean"]) for row in read_rows(tmp_path / f"seed{seed}" / "evaluations.csv")]
        assert [float(row["mean"]) for row in evaluations if row["seed"] == seed] == pytest.approx(means, abs=0.05)
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    (summary,) = read_rows(tmp_path / "cartpole_table.csv")
    assert summary["seeds"] == "2"
    assert summary["best agent at 475 or more"] == "0 of 2"
    scores = tmp_path / "seed0" / "scores_3.json"
    scores.write_text(scores.read_text().replace('"best_min": ', '"best_min": 1'))
    trained = (tmp_path / "seed0" / "metrics.csv").stat().st_mtime_ns
    main([*words, "--", *TINY])
    assert (tmp_path / "seed0" / "metrics.csv").stat().st_mtime_ns == trained
    again = read_rows(tmp_path / "cartpole.csv")
    assert again[0]["best_min"] == f"1{rows[0]['best_min']}"  # of the file: no agent is scored twice
    main([*words, "--solved", "1", "--name", "low", "--", *TINY])
    assert read_rows(tmp_path / "low_table.csv")[0]["best agent at 1 or more"] == "2 of 2"
    assert read_rows(tmp_path / "low.csv")[0]["solved_frames"] == evaluations[0]["frames"]
    # An interrupted run is trained from scratch; a run of another config is left unchanged.
    evaluations = tmp_path / "seed1" / "evaluations.csv"
    evaluations.write_text("\n".join(evaluations.read_text().splitlines()[:2]) + "\n")
    main([*words, "--", *TINY])
    assert len(evaluations.read_text().splitlines()) == 3
    assert f"{tmp_path / 'seed1'} was interrupted: training it from scratch" in capsys.readouterr().out
    own = "--seed is set by the experiment"
    for flags, says in ((["--gamma", "0.5"], "another config"), (["--seed", "7"], own), (["--seed=0"], own)):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--", *TINY, *flags])
        assert stop.value.code == 2
        assert says in capsys.readouterr().err
    assert (tmp_path / "seed0" / "metrics.csv").stat().st_mtime_ns == trained


@pytest.mark.several
def test_throughput_measures_installed_peers_and_names_missing_ones(monkeypatch, tmp_path, capsys):
    rows = script("shared.throughput_rows")
    monkeypatch.setattr(rows, "has", lambda *packages: False)
    throughput = script("throughput")
    short = ["throughput.py", "--rounds", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*short, "--json", "--only", "replay", "preprocess"])
    throughput.main()
    found = {(row["name"], row["note"]): row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert len(found) == 5
    assert all(row["ours"] > 0 and row["unit"] in ("s", "bytes") for row in found.values())
    missing = [row for (_, note), row in found.items() if note == "the peer needs pip install -e '.[bench]'"]
    assert [row["name"] for row in missing] == [
        *("replay: adding 32 rows", "replay: sampling 256 windows", "grey and resized frame"),
    ]
    assert all(row["peer"] is row["ratio"] is None for row in missing)
    pillow = found["grey and resized frame", "Pillow, which rounds grey values before it resizes"]
    assert pillow["ratio"] == pytest.approx(pillow["ours"] / pillow["peer"])
    written = read_rows(tmp_path / "throughput.csv")
    assert [row["what"] for row in written] == [name for name, _ in found]
    assert written[2]["ours"].endswith(" kB")
    assert float(written[2]["ratio"]) < 1 / 30
    assert [throughput.quantity(*each) for each in ((0.0123, "s"), (0.9997, "s"), (3e-7, "s"), (1.2e9, "bytes"))] == [
        *("12.3 ms", "1 s", "0.3 us", "1.2 GB"),
    ]
    for words, says in (
        (["--rounds", "0"], "0 must be at least 1"),
        (["--only", "nothing"], "invalid choice"),
    ):
        monkeypatch.setattr(sys, "argv", ["throughput.py", *words])
        with pytest.raises(SystemExit) as stop:
            throughput.main()
        assert stop.value.code == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("loop", "collector"),
    [
        pytest.param("host", "sync", marks=pytest.mark.long),
        pytest.param("host", "async", marks=pytest.mark.long),
        ("device", "sync"),
    ],
)
def test_our_demo_reports_speed_and_peak_memory(loop, collector, monkeypatch):
    demo = script("jaxdqn_demo")
    tiny = jaxdqn.Config(pixels=False, num_envs=2, frames_per_batch=16, batch_size=8, updates_per_batch=1)
    monkeypatch.setitem(jaxdqn.PRESETS, "tiny", tiny)
    found = demo.run(160, "tiny", loop, collector)
    assert set(found) == {"frames_per_second", "peak_bytes"}
    assert found["frames_per_second"] > 0
    assert found["peak_bytes"] > 2**26


def test_a_demo_that_is_too_short_to_be_timed_is_rejected(monkeypatch):
    monkeypatch.setitem(jaxdqn.PRESETS, "tiny", jaxdqn.Config(pixels=False, num_envs=2, frames_per_batch=16))
    with pytest.raises(ValueError, match="--frames 64 are too few: the first 5 batches"):
        script("jaxdqn_demo").run(64, "tiny", "host", "sync")


def test_the_time_to_the_first_update_ends_at_a_row_with_updates(monkeypatch, tmp_path):
    throughput = script("throughput")
    metrics = tmp_path / "metrics.csv"
    assert not throughput.has_updates(metrics)
    metrics.write_text("frames,updates\n32,0\n64,")
    assert not throughput.has_updates(metrics)
    metrics.write_text("frames,updates\n32,0\n64,8\n")
    assert throughput.has_updates(metrics)
    with pytest.raises(RuntimeError, match=r"(?s)jaxdqn train nothing made no update:.*unknown preset"):
        throughput.seconds_to_first_update("nothing", str(tmp_path))
