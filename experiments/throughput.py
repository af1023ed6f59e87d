"""Our speed and memory beside those of what people use today, each row timed in the same run as its peer.

    python3 -m pip install -e '.[bench]'
    python3 experiments/throughput.py [--json] [--only update replay] [--rounds 7]

Ours and the peer take turns, and the medians are compared: `ratio` is our cost over the peer's, so that below 1 we win.
Rows whose peer is not installed say so. The rows of the whole loop run `jaxdqn_demo.py` and `torchrl_demo.py`, a
few minutes in all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from throughput_rows import (
    Row,
    act_rows,
    environment_rows,
    has,
    needs,
    preprocess_rows,
    replay_rows,
    update_rows,
)

HERE = Path(__file__).parent
LOOP_FRAMES = 1600


def demo(script: str, *flags: str, cache: str | None = None) -> dict[str, float]:
    """The figures of a demo, run in a process of its own, with the programs that are kept in a cache, or none."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, str(HERE / script), *flags]
    with tempfile.TemporaryDirectory() as fresh:
        environment["XDG_CACHE_HOME"] = cache or fresh
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def loop_rows(rounds: int) -> Iterator[Row]:
    """Seconds a frame of the seed's demo configuration, collecting, storing and learning, and peak memory."""
    flags = ("--frames", str(LOOP_FRAMES))
    found: dict[str, list[dict[str, float]]] = {"async": [], "sync": [], "torchrl": []}
    for _ in range(max(rounds // 3, 1)):
        for collector in ("async", "sync"):
            found[collector].append(demo("jaxdqn_demo.py", *flags, "--collector", collector))
        if has("torchrl"):
            found["torchrl"].append(demo("torchrl_demo.py", *flags))

    def median(name: str, field: str) -> float | None:
        return statistics.median(run[field] for run in found[name]) if found[name] else None

    peer = median("torchrl", "frames_per_second")
    for collector in ("async", "sync"):
        ours = median(collector, "frames_per_second")
        assert ours is not None
        yield Row(f"loop_seed_demo_{collector}", 1 / ours, peer and 1 / peer, "s a frame", needs("torchrl"))
    memory = median("async", "peak_bytes")
    assert memory is not None
    yield Row("loop_peak_memory", memory, median("torchrl", "peak_bytes"), "bytes", "of the process that learns")


def start_rows(rounds: int) -> Iterator[Row]:
    """Seconds from the start of the process to the end of the first updates, statistics included.

    Ours ends with the eight updates of the first batch, TorchRL's with the first of them.
    """
    flags = ("--frames", "256")
    ours: list[float] = []
    peers: list[float] = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(1 + max(rounds // 3, 1)):
            ours.append(demo("jaxdqn_demo.py", *flags, "--collector", "sync", cache=cache)["first_update_seconds"])
            if has("torchrl"):
                peers.append(demo("torchrl_demo.py", *flags)["first_update_seconds"])
    peer = statistics.median(peers) if peers else None
    yield Row("first_update_cold_cache", ours[0], peer, "s", needs("torchrl") or "ours once")
    yield Row("first_update_warm_cache", statistics.median(ours[1:]), peer, "s", needs("torchrl"))


PARTS: dict[str, Callable[[int], Iterator[Row]]] = {
    "update": update_rows,
    "act": act_rows,
    "replay": replay_rows,
    "preprocess": preprocess_rows,
    "environments": environment_rows,
    "loop": loop_rows,
    "start": start_rows,
}


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description="Our speed and memory beside those of what people use today.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds} must be at least 1")
    if not options.json:
        print(f"{'name':32} {'ours':>10} {'peer':>10} {'ratio':>6}  unit")
    for part in options.only:
        for row in PARTS[part](options.rounds):
            print(json.dumps({**row._asdict(), "ratio": row.ratio}) if options.json else line(row), flush=True)


def line(row: Row) -> str:
    """A row of the table."""
    peer = "-" if row.peer is None else f"{row.peer:.4g}"
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    return f"{row.name:32} {row.ours:>10.4g} {peer:>10} {ratio:>6}  {row.unit}" + (f" ({row.note})" if row.note else "")


if __name__ == "__main__":
    main()
