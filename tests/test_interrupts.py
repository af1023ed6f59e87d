"""Ctrl-C, at any moment of a run."""

import signal
import subprocess
import sys
import time

import pytest
from probes import TINY

pytestmark = pytest.mark.slow


def test_ctrl_c_while_jax_is_imported_waits_until_it_is(tmp_path):
    """A KeyboardInterrupt in the middle of an extension's import can crash the process."""
    script = """
import importlib.abc, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "jaxlib":
            os.kill(os.getpid(), signal.SIGINT)
        if name == "jaxdqn.run.training":
            print("still importing")

sys.meta_path.insert(0, Interrupting())
from jaxdqn.cli import main
main()
"""
    words = [sys.executable, "-c", script, "train", *TINY, "--output", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130
    assert done.stdout.startswith("still importing")
    assert done.stderr.strip().splitlines() == ["jaxdqn: interrupted; what was written is whole"]
    assert not (tmp_path / "run").exists()


def test_ctrl_c_ends_with_130_and_whole_files(tmp_path):
    words = ["train", *TINY, "--total-frames", "1000000", "--capacity", "1000", "--output", "run"]
    # A shell starts background jobs with SIGINT ignored, and a child keeps that: undo it, as a terminal would.
    restore = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{restore}; from jaxdqn.cli import main; main()", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    metrics = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 20):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip().splitlines() == ["jaxdqn: interrupted; what was written is whole"]
    text = metrics.read_text()
    assert text.endswith("\n")
    columns = {line.count(",") for line in text.splitlines()}
    assert len(columns) == 1
    assert (tmp_path / "run" / "curve.png").exists()
