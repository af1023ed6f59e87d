"""How processes meet and part; `distributed_checks.py` starts real ones."""

import subprocess
import sys
from pathlib import Path

import pytest

import jaxdqn
from jaxdqn.launch import Launch


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"coordinator": "a:1"}, "--coordinator a:1 needs --distributed: add it"),
        ({"process_id": 1}, "--process-id 1 needs --distributed: add it"),
        ({"distributed": True, "coordinator": "here"}, "'here' must be HOST:PORT, as in 10.0.0.1:12345"),
        ({"distributed": True, "coordinator": "here:http"}, "must be HOST:PORT"),
        ({"distributed": True, "coordinator": "here:70000"}, "must be HOST:PORT"),
        ({"distributed": True, "num_processes": 0}, "--num-processes 0 must be at least 1"),
        ({"distributed": True, "num_processes": 2, "process_id": 2}, "--process-id 2 must be from 0 to"),
        ({"distributed": True, "connect_timeout": 0}, "--connect-timeout 0 must be at least 1"),
    ],
)
def test_flags_that_say_nothing_that_can_be_done_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        Launch(**fields).check()
    Launch(distributed=True, coordinator="[::1]:1", num_processes=2, process_id=1).check()


def test_a_witness_speaks_for_a_process_that_was_killed(tmp_path):
    (tmp_path / "states" / "0000003000").mkdir(parents=True)
    code = (
        "import os, signal, sys, pathlib; from jaxdqn.run.witness import Witness\n"
        "with Witness('process 1 of 2') as witness:\n"
        f"    witness.watch(pathlib.Path({str(tmp_path)!r}))\n"
        "    if sys.argv[1:]: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for words, says in ((["die"], f"`jaxdqn resume {tmp_path}` goes on from frame 3,000"), ([], "")):
        root = Path(jaxdqn.__file__).parent.parent
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=root, capture_output=True, text=True, timeout=60, check=False
        )
        assert says in done.stderr
        assert ("process 1 of 2 was ended" in done.stderr) == bool(words)


@pytest.mark.slow
def test_two_processes_train_together_and_one_that_is_lost_ends_the_other():
    """`tests/distributed_checks.py` without a word has all checks."""
    path = Path(__file__).parent / "distributed_checks.py"
    done = subprocess.run([sys.executable, path, "short"], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.endswith(" s")]) == 2
