"""SIGKILL at random moments, and `jaxdqn resume` each time: the run must end as the one that was never killed.

    python3 tests/kill_and_resume.py --kills 30

States are written so often that many kills hit the writing of one. The suite runs it with fewer kills.
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
    *(
        "--checkpoint-every",
        "128",
    ),
]
JAXDQN = [sys.executable, "-c", "from jaxdqn.cli import main; main()"]


def rows_of(path: Path) -> list[dict[str, str]]:
    """A table without the columns that depend on the machine."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.endswith(("_seconds", "_per_second"))} for row in rows]


def newest_state(run: Path) -> int:
    """Frames of the newest state; 0 where there is none."""
    return max((int(path.name) for path in (run / "states").glob("*") if path.name.isdecimal()), default=0)


def begin(words: list[str]) -> subprocess.Popen[str]:
    """A process of the command line."""
    return subprocess.Popen([*JAXDQN, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait(process: subprocess.Popen[str]) -> None:
    """Its end, which must be a good one."""
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {said}")


def kill_often(run: Path, first: list[str], kills: int, rng: random.Random) -> int:
    """Kill a run and resume it until it has been killed so often or is complete; how often it was."""
    words, done = first, 0
    while done < kills:
        process = begin(words)
        metrics = run / "metrics.csv"
        before = metrics.stat().st_mtime_ns if metrics.exists() else 0
        # Half of the lives end before or while the first state is written, the other half some states later.
        while process.poll() is None and (not metrics.exists() or metrics.stat().st_mtime_ns == before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3) if rng.random() < 0.5 else rng.uniform(0.3, 2.0))
        if process.poll() is not None:
            break
        kept = newest_state(run)
        process.kill()
        process.communicate()
        done += 1
        reached = max((int(row["frames"]) for row in rows_of(metrics)), default=0)
        writing = len(list((run / "states").glob("*.partial")))
        print(f"kill {done}: at frame {reached:,}, newest state {kept:,}{', one half written' if writing else ''}")
        assert reached - newest_state(run) <= 128 + 32 or not kept
        words = ["resume", str(run)]
    wait(begin(words)) if (run / "config.json").stat().st_size else None
    return done


def compare(run: Path, whole: Path) -> None:
    """Both runs are the same, in every row and in every parameter."""
    import jax
    import numpy as np

    import jaxdqn

    for name in ("metrics.csv", "evaluations.csv"):
        assert rows_of(run / name) == rows_of(whole / name), name
    for which in ("best", "last"):
        ours, theirs = (jax.tree.leaves(jaxdqn.load(folder, which).params) for folder in (run, whole))
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)), which


def main() -> None:
    """Parse the command line, kill, resume, compare."""
    parser = argparse.ArgumentParser(description="SIGKILL at random moments, and resume.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--total-frames", type=int, default=40_000)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    flags = [*FLAGS, "--total-frames", str(options.total_frames)]
    folder = Path(tempfile.mkdtemp())
    try:
        wait(begin(["train", *flags, "--output", str(folder / "whole")]))
        done = 0
        while done < options.kills:
            run = folder / f"killed{done}"
            done += kill_often(run, ["train", *flags, "--output", str(run)], options.kills - done, rng)
            compare(run, folder / "whole")
        print(f"{done} kills: every run ended as the one that was never killed")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
