"""Kill a run with SIGKILL at random times and resume it each time: it must end equal to a run that was never killed.

    python3 tests/checks/kill_and_resume.py --kills 30

States are written so often that many kills happen while one is written. The test suite runs it with fewer kills.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLAGS = [
    *("--no-pixels", "--num-envs", "4", "--frames-per-batch", "32", "--batch-size", "16", "--capacity", "2048"),
    *("--warmup-frames", "64", "--updates-per-batch", "1", "--evaluate-every", "4096", "--evaluation-episodes", "2"),
    "--checkpoint-every=128",
]
JAXDQN = [sys.executable, "-c", "from jaxdqn.cli.main import main; main()"]


def rows_of(path: Path) -> list[dict[str, str]]:
    """Read a table without the columns that depend on the machine."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.endswith(("_seconds", "_per_second"))} for row in rows]


def newest_state(run: Path) -> int:
    """Return the frames of the newest state; 0 if there is none."""
    return max((int(path.name) for path in (run / "states").glob("*") if path.name.isdecimal()), default=0)


def start(words: list[str]) -> subprocess.Popen[str]:
    """Start the command line in a process."""
    return subprocess.Popen([*JAXDQN, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait(process: subprocess.Popen[str]) -> None:
    """Wait for a process, which must succeed or report that the run was already complete."""
    _, err = process.communicate()
    if process.returncode and "is complete at frame" not in err:
        raise SystemExit(f"exit code {process.returncode}: {err}")


def kill_often(run: Path, first: list[str], kills: int, rng: random.Random) -> tuple[int, int]:
    """Kill and resume a run until it was killed `kills` times or is complete.

    Returns:
        The number of kills, and of those that left a half-written state.
    """
    words, done, writing = first, 0, 0
    while done < kills:
        process, metrics = start(words), run / "metrics.csv"
        before = metrics.stat().st_mtime_ns if metrics.exists() else 0
        # One process in four is killed while it starts, the others while they train and write states.
        if rng.random() < 0.25:
            time.sleep(rng.uniform(0.0, 6.0))
        else:
            while process.poll() is None and (not metrics.exists() or metrics.stat().st_mtime_ns == before):
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 1.5))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        done += 1
        rows = rows_of(metrics) if metrics.exists() else []
        reached = max((int(row["frames"]) for row in rows), default=0)
        half = len(list((run / "states").glob("*.partial")))
        writing += half
        print(f"kill {done}: at frame {reached:,}, newest state {newest_state(run):,}{', one half-written' * half}")
        assert reached - newest_state(run) <= 128 + 32 or not newest_state(run)
        words = ["resume", str(run)] if (run / "config.json").exists() else first
    wait(start(words))
    return done, writing


def compare(run: Path, whole: Path) -> None:
    """Assert that both runs are equal in every row, and in every array of their last states."""
    import numpy as np

    from jaxdqn.checkpoints.run_state import States
    from jaxdqn.storage.pytrees import load_arrays

    for name in ("metrics.csv", "evaluations.csv"):
        assert rows_of(run / name) == rows_of(whole / name), name
    found = [States(folder / "states", keep=2, with_replay=True).newest() for folder in (run, whole)]
    assert found[0].manifest.frames == found[1].manifest.frames
    ours, theirs = (load_arrays(each.folder / "arrays", None) for each in found)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours), "learner, actor or keys"
    for name in ("envs.npz", "rest.npz"):
        there = [each.folder / name for each in found if (each.folder / name).exists()]
        ours, theirs = ([*np.load(path).items()] for path in there) if there else ([], [])
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True)), name
    files = [sorted(path for path in (each.folder / "replay").iterdir()) for each in found]
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes(), "replay"
    print("equal: every row, parameters, target, optimizer, keys, counters, replay")


def main() -> None:
    """Parse the command line, kill, resume, compare."""
    parser = argparse.ArgumentParser(description="Kill a run with SIGKILL at random times, and resume it.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--total-frames", type=int, default=12_000)
    parser.add_argument("--loop", choices=["host", "device"], default="host")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    flags = [*FLAGS, "--total-frames", str(options.total_frames), "--loop", options.loop]
    folder = Path(tempfile.mkdtemp())
    try:
        wait(start(["train", *flags, "--output", str(folder / "whole")]))
        done, writing = 0, 0
        while done < options.kills:
            run = folder / f"killed{done}"
            kills, half = kill_often(run, ["train", *flags, "--output", str(run)], options.kills - done, rng)
            done, writing = done + kills, writing + half
            compare(run, folder / "whole")
        print(f"{done} kills, {writing} of them while a state was written: every run equals the one never killed")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
