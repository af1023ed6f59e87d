"""The command line: its output, its files, and how it rejects bad input."""

import json
import os
import re

import pytest
from probes import TINY

from jaxdqn.cli.main import main
from jaxdqn.loops.progress import Progress
from jaxdqn.training.trainer import RunProgress


def call(capsys, *words):
    """Run a command in this process; return its exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    printed = capsys.readouterr()
    return stop.value.code, printed.out, printed.err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    with pytest.raises(SystemExit) as stop:
        main(["train", *TINY, "--output", str(folder)])
    assert stop.value.code == 0
    return folder


def test_evaluate_prints_one_line_of_json_last(run, capsys):
    code, out, _ = call(capsys, "evaluate", str(run), "--episodes", "7", "--json")
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert result["episodes"] == len(result["lengths"]) == len(result["returns"]) == 7
    assert result["min"] <= result["median"] <= result["max"]
    assert result["mean"] == pytest.approx(sum(result["returns"]) / 7)
    assert result["checkpoint"] == "best"


def test_evaluate_prints_readable_text_without_json(run, capsys):
    code, out, _ = call(capsys, "evaluate", str(run), "--episodes", "2", "--checkpoint", "last")
    assert code == 0
    assert "2 greedy episodes of the last agent" in out
    assert "mean" in out


@pytest.mark.slow
def test_play_and_plot_write_pictures(run, capsys, tmp_path):
    assert call(capsys, "play", str(run), "--output", str(tmp_path / "a.gif"))[0] == 0
    assert (tmp_path / "a.gif").read_bytes().startswith(b"GIF89a")
    assert call(capsys, "plot", str(run), str(run), "--output", str(tmp_path / "c.png"))[0] == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_output_folders_are_numbered_by_default(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cartpole", "cartpole-2"):
        code, out, _ = call(capsys, "train", *TINY)
        assert code == 0
        assert f"jaxdqn evaluate runs/{name} --episodes 100" in out
        assert (tmp_path / "runs" / name / "curve.png").exists()


@pytest.mark.slow
def test_flags_after_a_preset_change_it(capsys, tmp_path):
    output = tmp_path / "run"
    code, _, _ = call(capsys, "train", "torchrl-demo", *TINY, "--output", str(output), "--gamma", "0.5", "--double")
    assert code == 0
    config = json.loads((output / "config.json").read_text())
    assert (config["gamma"], config["double"]) == (0.5, True)
    assert config["learning_rate"] == 2e-3  # from the preset
    lines = (output / "metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + 256 // 32


@pytest.mark.several
def test_the_default_preset_trains_on_pixels(capsys, tmp_path, monkeypatch):
    """Test the preset's network, shifts and mirroring, on frames large enough for two columns of features.

    All settings that compiled programs depend on are those of `test_run.py`, so that both share the programs.
    """
    monkeypatch.setattr("jaxdqn.training.setup.rollout_stats", None)  # another process must play the rollout
    small = ["--frame-size", "44", "--normalisation-frames", "100", "--total-frames", "128", "--warmup-frames", "64"]
    small += ["--num-envs", "4", "--batch-size", "16", "--capacity", "512", "--frame-stack", "4"]
    cheap = ["--updates-per-batch", "2", "--evaluation-episodes", "1", "--output", str(tmp_path / "run")]
    assert call(capsys, "train", *small, *cheap)[0] == 0
    fields = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (fields["random_shift"], fields["mirror"], fields["network"]) == (2, True, "padded-motion")
    last = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[-1].split(",")
    assert last[:2] == ["128", "6"]


def test_help_names_every_command_and_flag(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0
    assert all(word in out for word in ("train", "evaluate", "play", "plot", "cartpole", "torchrl-demo"))
    code, out, _ = call(capsys, "train", "--help")
    assert code == 0
    assert "PRESET" in out
    assert all(flag in out for flag in ("--env", "--no-pixels", "--total-frames", "--max-gradient-norm", "--double"))
    elsewhere = call(capsys, "train", "--env", "Acrobot-v1", "--help")[1]
    for page, default in ((out, "True"), (elsewhere, "False")):
        assert re.search(r"--mirror, .*?\(default:[\s│]+(\w+)\)", page, re.DOTALL)[1] == default
    assert call(capsys, "--version")[1].startswith("jaxdqn ")
    assert call(capsys)[0] == 2


BAD_INPUT = [
    (["trian"], "did you mean train"),
    (["train", "cartpol"], "did you mean cartpole"),
    (["train", "--env", "CartPoleX-v1"], "CartPoleX"),
    (["train", "--env", "no such/thing at all"], "no such/thing"),
    (["train", "--env", "Pendulum-v1"], "discrete"),
    (["train", "--env", "Blackjack-v1", "--no-pixels"], "Box"),
    (["train", "--batch-size", "64", "--capacity", "63"], "batch_size 64"),
    (["train", "--gamma", "1.01"], "gamma 1.01"),
    (["train", "--gamma", "nan"], "gamma nan"),
    (["train", "--num-envs", "0"], "num_envs 0"),
    (["train", "--num-envs", "-3"], "num_envs -3"),
    (["train", "--total-frames", "0"], "total_frames 0"),
    (["train", "--total-frames", "-5"], "total_frames -5"),
    (["train", "--frames-per-batch", "30"], "24 or 32"),
    (["train", "--batch-size", "many"], "--batch-size: 'many' is not a whole number"),
    (["train", "--gamma", "high"], "--gamma: 'high' is not a number"),
    (["train", "--batch-size"], "--batch-size"),
    (["train", "--batchsize", "8"], "did you mean --batch-size"),
    (["train", "--gama", "0.9"], "did you mean --gamma"),
    (["train", "--loss", "cubic"], "loss"),
    (["train", "--no-pixel"], "did you mean --no-pixels"),
    (["train", "--seed", "1", "torchrl-demo"], "a preset comes first"),
    (["train", "--output", ""], "output"),
    (["train", "--env"], "--env"),
    (["train", "--no-pixels", "--mirror"], "mirror True needs pixels"),
    (["train", "--total-frames", "3000000000"], "total_frames 3000000000"),
    (["train", "--capacity", "10000000000000", "--normalisation-frames", "9"], "largest that fits"),
    (["evaluate"], "RUN"),
    (["evaluate", "nowhere"], "does not exist"),
    (["evaluate", "nowhere", "--episodes", "0"], "--episodes 0"),
    (["evaluate", "nowhere", "--episode", "5"], "did you mean --episodes"),
    (["play", "nowhere"], "does not exist"),
    (["play", "nowhere", "--output", "a.mp4"], ".gif"),
    (["plot"], "run"),
    (["plot", "nowhere"], "does not exist"),
]


@pytest.mark.parametrize(
    ("words", "says"), BAD_INPUT, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_prints_one_line_and_exits_with_2(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *words)
    assert code == 2
    assert out == ""
    assert err.startswith("jaxdqn: ")
    assert err.count("\n") == 1
    assert says in err
    assert list(tmp_path.iterdir()) == []  # no partial output


def test_an_output_that_holds_a_run_is_rejected_and_unchanged(run, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    code, _, err = call(capsys, "train", *TINY, "--output", str(run))
    assert code == 2
    assert "already holds a run" in err
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_outputs_that_cannot_be_folders_are_rejected(capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        code, _, err = call(capsys, "train", *TINY, "--output", str(output))
        assert (code, err.count("\n")) == (2, 1)
        assert "is a file" in err
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    code, _, err = call(capsys, "train", *TINY, "--output", str(tmp_path / "full"))
    assert code == 2
    assert "is not empty" in err


def test_an_unwritable_output_is_rejected(capsys, tmp_path):
    if os.geteuid() == 0:  # root can write everywhere except to the kernel's own file systems
        output = "/proc/jaxdqn/run"
    else:
        tmp_path.chmod(0o500)
        output = str(tmp_path / "run")
    code, _, err = call(capsys, "train", *TINY, "--output", output)
    tmp_path.chmod(0o700)
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be made" in err


def test_folders_that_are_not_runs_are_rejected(capsys, tmp_path):
    code, _, err = call(capsys, "evaluate", str(tmp_path))
    assert (code, err.count("\n")) == (2, 1)
    assert "holds no config.json" in err
    for text, says in (
        ("{", "cannot be read"),
        ("[]", "does not hold a JSON object"),
        ('{"gama": 1}', "did you mean 'gamma'"),
    ):
        (tmp_path / "config.json").write_text(text)
        code, _, err = call(capsys, "evaluate", str(tmp_path))
        assert (code, err.count("\n")) == (2, 1)
        assert says in err
    (tmp_path / "config.json").write_text("{}")
    code, _, err = call(capsys, "evaluate", str(tmp_path))
    assert code == 2
    assert "no best checkpoint" in err


def test_an_error_during_a_run_prints_one_line_and_exits_with_1(monkeypatch, tmp_path, capsys):
    def faulty(*_, **how):
        yield RunProgress(Progress(1, 0, 0.0, [], {}, None), None, tmp_path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxdqn.training.run_steps.train_steps", faulty)
    with pytest.raises(SystemExit) as stop:
        main(["train", *TINY])
    assert stop.value.code == 1
    assert capsys.readouterr().err.strip() == (
        "jaxdqn: training stopped: [Errno 28] No space left on device; "
        f"`jaxdqn resume {tmp_path}` starts again from frame 0"
    )
