"""Compare our speed and memory with those of other libraries ("peers"), timed in the same run.

    python3 -m pip install -e '.[bench]'
    python3 experiments/throughput.py [--json] [--only update replay] [--rounds 7] [--output runs/throughput]

Arguments: `--only` chooses the parts, `--rounds` the number of measurements, `--json` prints one object for each row.
The rows are written to `throughput.csv` in the folder `--output`, too.
Our code and the peer are called alternately, and the medians are compared: `ratio` is our cost divided by the peer's,
so below 1 ours is better. Rows whose peer is not installed say so. The rows of the whole loop run `jaxdqn_demo.py` and
`torchrl_demo.py`, which takes a few minutes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from shared.command_line import positive
from shared.seeds import write_table
from shared.throughput_convolution import convolution_rows
from shared.throughput_device import device_rows
from shared.throughput_envs import environment_rows, game_rows
from shared.throughput_rows import (
    Row,
    act_rows,
    has,
    needs,
    preprocess_rows,
    replay_rows,
    update_rows,
)

HERE = Path(__file__).parent
LOOP_FRAMES = 1600
START_TIMEOUT = 300  # seconds


def clean_environment(cache: str) -> dict[str, str]:
    """Return this process's environment variables, with a separate folder for compiled programs."""
    others = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return {**others, "XDG_CACHE_HOME": cache}


def demo(script: str, *flags: str) -> dict[str, float]:
    """Run a demo in a separate process and return its measurements."""
    command = [sys.executable, str(HERE / script), *flags]
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(command, env=clean_environment(cache), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def loop_rows(rounds: int) -> Iterator[Row]:
    """Measure TorchRL's demo configuration: seconds a frame (collecting, storing and learning), and peak memory."""
    flags = ("--frames", str(LOOP_FRAMES))
    ours_flags = {"sync": [], "async": ["--collector", "async"], "device": ["--loop", "device"]}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (*ours_flags, "torchrl")}
    for _ in range(max(rounds // 3, 1)):
        for name, own in ours_flags.items():
            found[name].append(demo("jaxdqn_demo.py", *flags, *own))
        if has("torchrl"):
            found["torchrl"].append(demo("torchrl_demo.py", *flags))

    def median(name: str, field: str) -> float | None:
        return statistics.median(run[field] for run in found[name]) if found[name] else None

    peer = median("torchrl", "frames_per_second")
    for name in ours_flags:
        ours = median(name, "frames_per_second")
        assert ours is not None
        yield Row(f"frame of torchrl-demo, {name}", 1 / ours, peer and 1 / peer, "s", needs("torchrl") or "TorchRL")
    memory = median("async", "peak_bytes")
    assert memory is not None
    peer = median("torchrl", "peak_bytes")
    yield Row("peak memory of torchrl-demo, async", memory, peer, "bytes", needs("torchrl") or "TorchRL")


def atari_rows(rounds: int) -> Iterator[Row]:
    """Compare Pong: a step of the environments alone, and of the whole loop with an update every four steps."""
    if not has("ale_py", "cv2"):
        return
    yield from game_rows(rounds)
    found: dict[str, list[dict[str, float]]] = {"jaxdqn": [], "peer": []}
    for _ in range(max(rounds // 3, 1)):
        for name, runs in found.items():
            if name == "jaxdqn" or has("torch"):
                runs.append(demo("atari_demo.py", "--of", name, "--steps", str(LOOP_FRAMES)))
    speeds = {name: statistics.median(run["steps_per_second"] for run in runs) for name, runs in found.items() if runs}
    peer = 1 / speeds["peer"] if "peer" in speeds else None
    note = needs("torch") or "PyTorch, CleanRL's protocol"
    yield Row("step of Pong, preset atari", 1 / speeds["jaxdqn"], peer, "s", note)


def seconds_to_first_update(preset: str, cache: str) -> float:
    """Run `jaxdqn train PRESET` until its metrics have a row with updates, and return the seconds from its start."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        metrics = Path(folder) / "run" / "metrics.csv"
        words = [str(Path(sysconfig.get_path("scripts")) / "jaxdqn"), "train", preset, "--output", str(metrics.parent)]
        started = time.monotonic()
        process = subprocess.Popen(words, env=clean_environment(cache), stdout=output, stderr=output)
        try:
            while not has_updates(metrics):
                if process.poll() is not None or time.monotonic() > started + START_TIMEOUT:
                    output.seek(0)
                    raise RuntimeError(f"jaxdqn train {preset} made no update:\n{output.read()[-2000:]}")
                time.sleep(0.01)
            return time.monotonic() - started
        finally:
            process.terminate()
            process.wait()


def has_updates(metrics: Path) -> bool:
    """Return whether a row of a run's metrics has updates."""
    if not metrics.exists():
        return False
    with metrics.open(newline="") as file:
        return any(int(row["updates"] or 0) > 0 for row in csv.DictReader(file))


def start_rows(rounds: int) -> Iterator[Row]:
    """Measure the seconds from the start of the process to the end of the first updates, including statistics.

    Ours is the command `jaxdqn train` and ends after all updates of the first batch; TorchRL's ends after the first
    update. `torchrl-demo` and TorchRL collect 32 frames before; `cartpole` collects 1,024, so it has no peer.
    """
    ours: dict[str, list[float]] = {"torchrl-demo": [], "cartpole": []}
    peers: list[float] = []
    with tempfile.TemporaryDirectory() as caches:
        for _ in range(1 + max(rounds // 3, 1)):
            for preset, seconds in ours.items():
                seconds.append(seconds_to_first_update(preset, str(Path(caches) / preset)))
            if has("torchrl"):
                started = time.time()
                peers.append(demo("torchrl_demo.py", "--frames", "256")["first_update_at"] - started)
    for preset, seconds in ours.items():
        peer = statistics.median(peers) if peers and preset == "torchrl-demo" else None
        name = f"start to first updates of {preset}"
        note = (needs("torchrl") or "TorchRL") if preset == "torchrl-demo" else "includes 1,024 frames"
        yield Row(f"{name}, nothing compiled", seconds[0], peer, "s", note)
        yield Row(f"{name}, compiled before", statistics.median(seconds[1:]), peer, "s", note)


PARTS: dict[str, Callable[[int], Iterator[Row]]] = {
    "update": update_rows,
    "convolution": convolution_rows,
    "act": act_rows,
    "replay": replay_rows,
    "preprocess": preprocess_rows,
    "environments": environment_rows,
    "device": device_rows,
    "loop": loop_rows,
    "atari": atari_rows,
    "start": start_rows,
}


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description="Compare our speed and memory with those of other libraries.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--rounds", type=positive, default=7, help="number of measurements")
    parser.add_argument("--output", type=Path, default=Path("runs/throughput"))
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    options = parser.parse_args()
    table: list[dict[str, str]] = []
    for part in options.only:
        for row in PARTS[part](options.rounds):
            table.append(cells(row))
            write_table(options.output / "throughput.csv", table)
            print(json.dumps({**row._asdict(), "ratio": row.ratio}) if options.json else line(row), flush=True)


def line(row: Row) -> str:
    """Return a row as a line of text, in columns."""
    what, ours, peer, ratio, note = cells(row).values()
    return f"{what:45} {ours:>10} {peer or '-':>10} {ratio or '-':>6}  {note}".rstrip()


def cells(row: Row) -> dict[str, str]:
    """Return a row's cells, with readable units."""
    values = ["" if value is None else quantity(value, row.unit) for value in (row.ours, row.peer)]
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return {"what": row.name, "ours": values[0], "peer": values[1], "ratio": ratio, "the peer is": row.note}


UNITS = {"s": {"s": 1.0, "ms": 1e-3, "us": 1e-6}, "bytes": {"GB": 1e9, "MB": 1e6, "kB": 1e3, "bytes": 1.0}}


def quantity(value: float, unit: str) -> str:
    """Return seconds or bytes with three digits, in the largest unit of which there is at least one."""
    value = float(f"{value:.3g}")
    name, size = next((each for each in UNITS[unit].items() if value >= each[1]), list(UNITS[unit].items())[-1])
    return f"{value / size:.3g} {name}"


if __name__ == "__main__":
    main()
