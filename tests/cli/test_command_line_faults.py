"""The command line when its environment fails (streams, devices, disk): one line, and the right exit code."""

import io
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from probes import TINY, counting_env
from running import command, interrupting_import_of
from small_runs import CONFIG

import jaxdqn
from jaxdqn.cli.console import Display
from jaxdqn.loops.progress import Progress
from jaxdqn.storage.atomic import read_json
from jaxdqn.training.trainer import RunProgress

JAXDQN = [sys.executable, "-c", "from jaxdqn.cli.main import main; main()"]
STREAMS = "import sys; from jaxdqn.standard_streams import *; guard_streams(); {}; sys.exit(finish_streams(0))"


def process(words, *, shell='exec "$@"', **env):
    """Run a process from a shell, which may close its streams; `$closed` is a pipe without a reader."""
    reader, closed = os.pipe()
    os.close(reader)
    given = {**os.environ, **env, "closed": str(closed)}
    kwargs = {"capture_output": True, "text": True, "check": False, "timeout": 120}
    try:
        return subprocess.run(["bash", "-c", shell, "bash", *map(str, words)], env=given, pass_fds=[closed], **kwargs)
    finally:
        os.close(closed)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "my run"
    assert command("train", *TINY, "--output", folder) == 0
    return folder


def one_line(capsys):
    """Return the output of a command, which must be one line on standard error."""
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), (out, err)
    return err


@pytest.mark.parametrize(
    ("shell", "code", "says"),
    [
        ('exec "$@" >&$closed', 0, ""),
        ('exec "$@" >/dev/full', 1, "jaxdqn: standard output cannot be written: No space left on device\n"),
        ('exec "$@" >&-', 0, ""),
    ],
    ids=["a closed pipe", "a full disk", "no standard output"],
)
def test_help_exits_without_a_traceback_if_its_output_cannot_be_written(shell, code, says):
    done = process([*JAXDQN, "train", "--help"], shell=shell)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", says)


@pytest.mark.parametrize("stderr", ["2>&-", "2>&$closed"])
def test_the_exit_code_is_right_if_standard_error_is_closed(stderr):
    done = process([*JAXDQN, "evaluate", "nowhere"], shell=f'exec "$@" {stderr}')
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.slow
@pytest.mark.several
def test_training_and_evaluation_finish_if_their_output_is_closed(run, tmp_path):
    done = process([*JAXDQN, "evaluate", run, "--episodes", "2"], shell='exec "$@" >&$closed')
    assert (done.returncode, done.stderr) == (0, "")
    words = [*JAXDQN, "train", *TINY, "--output", tmp_path / "run"]
    done = process(words, shell='exec "$@" >&$closed 2>&$closed')
    assert done.returncode == 0
    assert (tmp_path / "run" / "metrics.csv").read_text().splitlines()[-1].startswith("256,")
    assert read_json(tmp_path / "run" / "checkpoints" / "index.json")["last"] == 256


def test_a_file_never_takes_the_descriptor_of_a_closed_stream(tmp_path):
    write = f"print('library'); file = open({str(tmp_path / 'metrics')!r}, 'w'); sys.exit(file.fileno() < 3)"
    assert process([sys.executable, "-c", STREAMS.format(write)], shell='exec "$@" <&- >&- 2>&-').returncode == 0
    assert (tmp_path / "metrics").read_text() == ""


def test_characters_that_the_terminal_cannot_encode_are_escaped():
    done = process([sys.executable, "-c", STREAMS.format("print('1 ± 2')")], PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 \\xb1 2\n", "")


def test_ctrl_c_during_imports_prints_one_line():
    script = interrupting_import_of("tyro")
    done = process([sys.executable, "-c", script, "train", "--help"])
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "jaxdqn: interrupted; all files are complete\n"


@pytest.mark.slow
def test_an_unknown_jax_platform_prints_one_line():
    done = process([*JAXDQN, "evaluate", "nowhere"], JAX_PLATFORMS="nonsense")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "JAX_PLATFORMS 'nonsense' gives no device" in done.stderr
    assert done.stderr.endswith("; unset it, or set it to cpu\n")


@pytest.mark.parametrize("words", [["train", *TINY], ["evaluate", "x"], ["play", "x"], ["doctor"]], ids=lambda x: x[0])
def test_a_jax_platform_without_its_plugin_prints_one_line(words, capsys, tmp_path, monkeypatch):
    def local_devices():  # as in JAX with JAX_PLATFORMS=cuda, if nothing of CUDA is installed
        raise AssertionError

    monkeypatch.setattr(jax, "local_devices", local_devices)
    monkeypatch.chdir(tmp_path)
    assert command(*words) == (1 if words == ["doctor"] else 2)
    out, err = capsys.readouterr()
    assert "no device: its plugin for JAX is not installed" in (out if words == ["doctor"] else err)
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


FAULTS = [
    (MemoryError("Unable to allocate 9 GiB"), 1, "out of memory: Unable to allocate 9 GiB"),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nbuffers:\n"), 1, "JAX: RESOURCE_EXHAUSTED: Out of"),
    (ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib"), 1, "module 'matplotlib' is not installed"),
    (OSError(28, "No space left on device"), 1, "No space left on device"),
    (OSError(13, "Permission denied"), 2, "Permission denied"),
]


@pytest.mark.parametrize(("error", "code", "says"), FAULTS, ids=lambda value: type(value).__name__)
def test_an_error_of_the_machine_prints_one_line_and_has_its_exit_code(error, code, says, capsys, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("jaxdqn.evaluation.loading.load", fail)
    monkeypatch.setattr("jaxdqn.training.run_steps.train_steps", fail)
    for words in (["evaluate", "x"], ["train", *TINY]):
        assert command(*words) == code
        assert says in one_line(capsys)


def test_suggested_commands_are_quoted_and_complete(capsys, tmp_path, monkeypatch):
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "config.json").write_text('{"env": "my_module:Mine-v0"}')

    def short(config, *_, **how):
        yield RunProgress(Progress(1, 0, 0.0, [], {}, None), None, folder)
        if config.seed:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxdqn.training.run_steps.train_steps", short)
    assert command("train", *TINY) == 0
    assert f"next: jaxdqn evaluate '{folder}' --env my_module:Mine-v0 --episodes 100" in capsys.readouterr().out
    assert command("train", *TINY, "--seed", "1") == 1
    assert f"`jaxdqn resume '{folder}' --env my_module:Mine-v0` starts again from frame 0" in capsys.readouterr().err


KINDS = [  # output, environment variables, whether the bar is redrawn, whether it has colours
    ("a file", {"FORCE_COLOR": "1"}, False, False),
    ("a file", {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}, False, False),
    ("a terminal", {"TERM": "dumb"}, False, False),
    ("a terminal", {"TERM": "dumb", "FORCE_COLOR": "1"}, False, False),
    ("a terminal", {"TERM": "xterm"}, True, True),
    ("a terminal", {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
    ("a terminal", {"TERM": "xterm", "CLICOLOR": "0"}, True, False),
]


@pytest.mark.parametrize(("where", "env", "redrawn", "coloured"), KINDS, ids=str)
def test_progress_is_redrawn_only_on_terminals_that_can_do_it(where, env, redrawn, coloured, monkeypatch):
    page = io.StringIO()
    page.isatty = lambda: where == "a terminal"
    for name in ("FORCE_COLOR", "NO_COLOR", "CLICOLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", page)
    with Display(jaxdqn.Config(total_frames=64, warmup_frames=32)) as display:
        for frames in (32, 64):
            display.show(RunProgress(Progress(frames, 0, 0.5, [], {}, None), None, Path("runs/x")))
    text = page.getvalue()
    assert ("\x1b[2K" in text) == redrawn
    assert ("\x1b[3" in text) == coloured
    assert redrawn or text.startswith("frames 32/64  ")
    assert redrawn or "\x1b" not in text


@pytest.mark.parametrize("value", ["1e6", "nan", "1.0", ""])
def test_a_number_that_is_not_whole_is_rejected_with_a_plain_message(value, capsys):
    for flag in ("--total-frames", "--capacity", "--batch-size"):
        assert command("train", flag, value) == 2
        assert one_line(capsys) == f"jaxdqn: {flag}: {value!r} is not a whole number\n"


def test_a_folder_name_that_is_not_utf_8_is_rejected(capsys):
    assert command("train", *TINY, "--output", "run\udcff") == 2
    assert "'run\\udcff' is not valid UTF-8" in one_line(capsys)


def test_the_error_for_an_invalid_config_names_its_file(capsys, tmp_path):
    for text, says in (
        ("[" * 100_000, "recursion"),
        ('{"seed": ' + "9" * 5_000 + "}", "digits"),
        ('{"gamma": 2}', "2"),
    ):
        (tmp_path / "config.json").write_text(text)
        assert command("evaluate", tmp_path) == 2
        said = one_line(capsys)
        assert str(tmp_path / "config.json") in said
        assert says in said


def test_a_device_run_produces_no_nan():
    run = jaxdqn.make_device_run(CONFIG, env=counting_env(2))
    state = run.init(jax.random.key(0))
    with jax.debug_nans(True):
        jaxdqn.jit(run.collect)(state)
