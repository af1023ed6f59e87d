"""A run on a disk that fills up: a small tmpfs, if one can be mounted."""

import contextlib
import shutil
import subprocess
import time

import pytest
from stopped_runs import config_in, finish, quiet, table

import jaxdqn
from jaxdqn.checkpoints.run_state import States
from jaxdqn.storage.csv_table import Table

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on its own file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Use up every free byte."""
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
        for size in (2**16, 2**8, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def test_full_disk_ends_a_run_with_complete_files_and_its_last_state(small_disk):
    run, notes = small_disk / "run", []
    steps = jaxdqn.train(config_in(run, log_every=0), say=notes.append)
    for step in steps:
        if step.progress.frames == 128:
            break
    before = table(run / "metrics.csv")
    fill(small_disk)
    began = time.monotonic()
    cannot = pytest.raises(OSError, match=r"No space left on device: '.*/(checkpoints|metrics)")
    with pytest.warns(RuntimeWarning, match="TensorBoard files are no longer written|no curve.png"), cannot:
        list(steps)
    assert time.monotonic() - began < 30
    assert (run / "metrics.csv").read_bytes().endswith(b"\n")
    rows = table(run / "metrics.csv")
    assert rows[: len(before)] == before
    assert all(None not in row.values() for row in rows)  # no incomplete line
    newest = States(run / "states", keep=2, with_replay=True).newest()
    assert newest.manifest.frames >= 96
    (small_disk / "ballast").unlink()
    assert finish(jaxdqn.resume(run, say=quiet)).progress.frames == 320
    assert [int(row["frames"]) for row in table(run / "metrics.csv")] == list(range(16, 321, 16))


def test_failed_save_is_reported_and_tried_again(small_disk, monkeypatch):
    run, notes = small_disk / "run", []
    steps = jaxdqn.train(config_in(run, log_every=100_000), say=notes.append)  # no row is due before the end
    for step in steps:
        if step.progress.frames == 64:
            fill(small_disk)
        if step.progress.frames == 112:
            (small_disk / "ballast").unlink()
    assert len(notes) == 1
    assert "no checkpoint of frame 96: " in notes[0]
    assert notes[0].endswith("0000000064")
    assert step.progress.frames == 320
    assert [path.name for path in (run / "states").iterdir() if "partial" in path.name] == []
    assert States(run / "states", keep=2, with_replay=True).newest().manifest.frames == 320


def test_line_that_does_not_fit_leaves_the_table_unchanged(small_disk):
    table_file = Table(small_disk / "rows.csv", ["frames", "text"])
    table_file.write({"frames": 1, "text": "whole"})
    fill(small_disk)
    with pytest.raises(OSError, match=r"No space left on device: '.*rows\.csv'"):
        table_file.write({"frames": 2, "text": "x" * 100_000})
    assert (small_disk / "rows.csv").read_text() == "frames,text\n1,whole\n"
    table_file.close()
