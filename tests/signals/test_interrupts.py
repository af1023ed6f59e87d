"""Ctrl-C and other signals, at any moment of a run."""

import signal
import subprocess
import sys
import time

import kill_and_resume
import psutil
import pytest
from probes import TINY
from running import interrupting_import_of

from jaxdqn.signals import Stop

pytestmark = pytest.mark.slow


def test_ctrl_c_during_the_import_of_jax_takes_effect_after_it(tmp_path):
    """A KeyboardInterrupt in the middle of an extension's import can crash the process."""
    script = interrupting_import_of("jaxlib")
    words = [sys.executable, "-c", script, "train", *TINY, "--output", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130
    assert done.stdout.startswith("still importing")
    assert done.stderr.strip().splitlines() == ["jaxdqn: interrupted; all files are complete"]
    assert not (tmp_path / "run").exists()


# A shell starts background jobs with SIGINT ignored, and their children inherit that: restore the default.
RESTORE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


def children_of(pid):
    """Return all descendants of a process."""
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.parametrize(
    ("number", "flags"),
    [
        pytest.param(signal.SIGTERM, ["--collector", "async", "--num-envs", "2"], marks=pytest.mark.several),
        pytest.param(signal.SIGINT, ["--loop", "device"], marks=pytest.mark.long),
    ],
)
def test_a_signal_saves_the_state_ends_the_workers_and_prints_the_resume_command(number, flags, tmp_path):
    words = ["train", *TINY, "--total-frames", "1000000", "--capacity", "1000", "--checkpoint-every", "0", *flags]
    command = [sys.executable, "-c", f"{RESTORE}; from jaxdqn.cli.main import main; main()", *words, "--output", "run"]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, **pipes)
    metrics = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 20):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    children = children_of(process.pid)
    sent = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - sent < 10
    assert process.returncode == 128 + number
    assert not psutil.wait_procs(children, timeout=5)[1]  # the fork server of the workers ends last
    assert err.strip().splitlines() == (["jaxdqn: interrupted; all files are complete"] if number == 2 else [])
    (state,) = (tmp_path / "run" / "states").iterdir()
    text = metrics.read_text()
    last = int(text.splitlines()[-1].split(",")[0])
    assert int(state.name) == last
    assert f"`jaxdqn resume run` resumes from frame {last:,}" in " ".join(out.split())
    assert text.endswith("\n")
    assert len({line.count(",") for line in text.splitlines()}) == 1
    assert (tmp_path / "run" / "curve.png").exists()


def test_a_run_stops_at_once_after_the_grace_period_or_a_second_signal():
    began = time.monotonic()
    with Stop().listening() as stop:
        stop.grace_seconds = 0.2
        stop.allow_graceful(True)
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            time.sleep(5)
        signal.setitimer(signal.ITIMER_REAL, 0)
        with pytest.raises(SystemExit, match="143"):  # a second signal stops at once
            signal.raise_signal(signal.SIGTERM)
    assert time.monotonic() - began < 3
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a system without SIGHUP")
def test_sighup_counts_as_sigterm_and_may_be_sent_twice():
    """The kernel and the shell both send SIGHUP; with `nohup`, a process ignores it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with Stop().listening() as stop:
            stop.allow_graceful(True)
            for _ in range(2):
                signal.raise_signal(signal.SIGHUP)
            assert stop.signal_number == signal.SIGTERM
            with pytest.raises(SystemExit, match="143"):
                stop.end_run()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Stop().listening() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.several
def test_a_run_killed_at_random_moments_ends_like_one_never_killed(tmp_path):
    """`tests/checks/kill_and_resume.py --kills 30` is the long version."""
    words = [sys.executable, kill_and_resume.__file__, "--kills", "1", "--total-frames", "480", "--seed", "3"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "every run equals the one never killed" in done.stdout
