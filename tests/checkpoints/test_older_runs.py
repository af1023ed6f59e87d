"""Runs of older versions: their files are read with the meaning that they had."""

import csv
import dataclasses
import json
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from rings import RECORD
from whole_runs import VECTORS, finish, table

import jaxdqn
from jaxdqn.agent.making import make_agent
from jaxdqn.checkpoints.agent_files import AgentSpec
from jaxdqn.checkpoints.compatibility import OLD_VALUES, config_of_file
from jaxdqn.checkpoints.run_state import States
from jaxdqn.cli.main import main
from jaxdqn.cli.train_flags import parse_config
from jaxdqn.config import Config
from jaxdqn.observations import ObsSpec
from jaxdqn.presets import PRESETS
from jaxdqn.storage.checksums import amend, read_manifest
from jaxdqn.types import Rows

NEW = ("eval_env", "colour", "value_bias", "symmetries_of", "epsilon_frames", "max_episode_steps")


@pytest.mark.slow
def test_curve_is_drawn_from_the_unbiased_columns(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    from jaxdqn.reporting.plots import draw_curve

    drawn = []
    real = Axes.errorbar
    monkeypatch.setattr(
        Axes, "errorbar", lambda self, x, y, *a, **k: drawn.append(list(y)) or real(self, x, y, *a, **k)
    )
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("frames,return_mean\n10,1.0\n")
    for columns, expected in (
        (("frames", "screening_mean", "screening_standard_error", "mean", "standard_error"), [3.0, 4.0]),
        (("frames", "mean", "standard_error"), [2.0, 3.0]),  # of an older version
    ):
        with (run / "evaluations.csv").open("w", newline="") as file:
            rows = (
                [[10, 3.0, 0.5, 9.0, 0.1], [20, 4.0, 0.5, 8.0, 0.1]]
                if len(columns) == 5
                else [[10, 2.0, 1], [20, 3.0, 1]]
            )
            csv.writer(file).writerows([columns, *rows])
        draw_curve([run], run / "curve.png")
        assert drawn.pop() == expected


@pytest.mark.slow
@pytest.mark.several
def test_run_of_an_older_version_is_resumed_with_its_rows(tmp_path):
    """Its files lack the new fields; everything else is as this version writes it."""
    old_values = {name: OLD_VALUES[name] for name in NEW}
    config = dataclasses.replace(VECTORS, **old_values, network="motion", total_frames=256)
    run = finish(config, tmp_path / "run")
    row = "256,4,9.5,9,0.1,9,10,9 10 9 10,1.0\n"
    header = "frames,episodes,mean,median,standard_error,min,max,lengths,elapsed_seconds\n"
    (run / "evaluations.csv").write_text(header + row)
    fields = json.loads((run / "config.json").read_text())
    known = {name: value for name, value in fields.items() if name not in NEW}
    (run / "config.json").write_text(json.dumps({**known, "frame_stack": 4}))
    for state in (run / "states").iterdir():
        manifest = read_manifest(state)
        kept = {name: value for name, value in manifest["config"].items() if name not in NEW}
        amend(state, {"config": {**kept, "frame_stack": 4}})
    *_, end = jaxdqn.resume(run, total_frames=512, say=pytest.fail)
    assert end.progress.frames == 512
    rows = table(run / "evaluations.csv")
    assert [(row["frames"], row["mean"], row["screening_mean"] == "") for row in rows[:1]] == [("256", "9.5", True)]
    assert rows[-1]["frames"] == "512"
    assert rows[-1]["screening_mean"]


@pytest.mark.parametrize(("pixels", "stack", "scale"), [(True, 4, 255.0), (False, None, 1.0)])
def test_agent_json_of_an_older_version_gets_the_stack_and_scale_of_that_version(pixels, stack, scale):
    config = config_of_file({"pixels": pixels})
    fields = {"num_actions": 3, "obs_shape": [64, 64], "obs_dtype": "uint8", "custom": [], "frames": 10}
    assert AgentSpec.from_dict(fields, config) == AgentSpec(3, ObsSpec((64, 64), np.dtype(np.uint8), stack, scale))


@pytest.fixture
def older_run(tmp_path):
    """Unpack a run of CartPole's vectors, written by commit 5a7a6a5 and stopped at frame 128 of 192."""
    with tarfile.open(Path(__file__).parent / "data" / "older_run.tar.gz") as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # from 3.11.4
    return tmp_path / "older_run"


def resume_older(run):
    return jaxdqn.resume(run, network=jaxdqn.DuelingMLP(2, trunk=(8,), hidden=(4,)), say=lambda note: None)


@pytest.mark.slow
def test_run_written_before_the_packages_existed_resumes_with_the_same_results(older_run):
    *_, end = resume_older(older_run)
    assert end.progress.frames == 192
    rows = table(older_run / "metrics.csv")[-2:]
    assert [(row["frames"], row["updates"], row["return_mean"]) for row in rows] == [
        ("144", "14", "27.0"),
        ("192", "20", "19.5"),
    ]
    np.testing.assert_allclose([float(row["loss"]) for row in rows], [2.185258626937866, 1.8965725898742676], rtol=1e-4)
    agent = jaxdqn.load(older_run, network=jaxdqn.DuelingMLP(2, trunk=(8,), hidden=(4,)))
    assert agent(np.zeros((1, 4), np.float32))[0] in (0, 1)


@pytest.mark.slow
def test_resume_accepts_former_names_and_keys_of_later_versions(older_run):
    fields = json.loads((older_run / "config.json").read_text())
    (older_run / "config.json").write_text(json.dumps({**fields, "network": "seed"}))
    (state,) = (older_run / "states").iterdir()
    config = read_manifest(state)["config"]
    amend(state, {"config": {**config, "network": "seed"}, "of a later version": {"a": 1}})
    with resume_older(older_run) as steps:
        assert next(steps).progress.frames == 144
    (state,) = (older_run / "states").iterdir()
    assert read_manifest(state)["config"]["network"] == "torchrl"


def test_former_names_of_presets_and_a_network_still_work(tmp_path, capsys):
    assert PRESETS["seed"] is PRESETS["torchrl"]
    assert PRESETS["seed-demo"] is PRESETS["torchrl-demo"]
    with pytest.raises(KeyError, match="sed"):
        PRESETS["sed"]
    assert Config(network="seed") == Config(network="torchrl")
    assert PRESETS["torchrl"].network == "torchrl"
    for words in (["--network", "seed"], ["--network=seed"], ["--network", "torchrl"]):
        assert parse_config([*words, "--env", "CartPole-v1", "--seed", "7"]).network == "torchrl"
    for name in ("seed", "seed-demo"):
        with pytest.raises(SystemExit):
            main(["train", name, "--total-frames", "-1"])
        assert "total_frames -1" in capsys.readouterr().err


def test_rows_of_a_version_without_masks_allow_every_action(tmp_path):
    config = Config(pixels=False, num_envs=2, capacity=64, total_frames=64, warmup_frames=0, batch_size=8)
    sizes = {"num_actions": 3, "obs_shape": (1,), "obs_dtype": np.float32}
    before, now = make_agent(config, **sizes), make_agent(config, **sizes, action_masks=True)
    zeros = np.zeros((5, 2))
    steps = np.repeat(np.arange(5, dtype=np.int32), 2).reshape(5, 2)
    rows = Rows(np.zeros((5, 2, 1), np.float32), np.int32(zeros), np.float32(zeros), zeros > 0, zeros > 0, steps)
    state = before.observe(before.init(jax.random.key(0)), rows)
    states = States(tmp_path, keep=1, with_replay=True)
    states.save(10, state, RECORD)
    loaded, _ = states.load(states.newest(), now, now.init(jax.random.key(1)))
    assert loaded.replay.rows.mask[:5].all()
    assert loaded.replay.rows.mask.shape == (32, 2, 3)
