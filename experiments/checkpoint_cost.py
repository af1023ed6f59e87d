"""Measure what a checkpoint with replay costs: time that training waits, memory, and bytes on disk.

    python3 experiments/checkpoint_cost.py --rows 100000 --output runs/checkpoint-cost

Arguments: `--rows`, the size of the ring; `--output`, for `checkpoint_cost.csv`. The ring is filled with frames of
CartPole, and then with noise, which cannot be compressed. Each is saved three times, with `--new-rows` (3,000) before
the second and the third time, and loaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import psutil
from shared.command_line import positive
from shared.seeds import markdown, write_table

import jaxdqn
from jaxdqn.agent.agent import AgentState
from jaxdqn.checkpoints.run_manifest import RunRecord
from jaxdqn.checkpoints.run_state import States
from jaxdqn.loops.device_run import DeviceRun
from jaxdqn.presets import PRESETS

RECORD = RunRecord(config={}, versions={}, index={}, log=None, evaluation_due=False)


class Cost(NamedTuple):
    """The measurements.

    Attributes:
        replay_bytes: Memory of the ring.
        first_seconds: Time to save it.
        second_seconds: Time to save it after `new_rows` new rows: files that have not changed are copied.
        third_seconds: The same for the third and every later time: files are linked from the checkpoint that is
            deleted next.
        extra_bytes: Additional memory while saving, at its peak.
        disk_bytes: Size of the state on disk.
        load_seconds: Time to verify and load it.
    """

    replay_bytes: int
    first_seconds: float
    second_seconds: float
    third_seconds: float
    extra_bytes: int
    disk_bytes: int
    load_seconds: float


def measure(rows: int, *, noise: bool, new_rows: int = 3_000) -> Cost:
    """Fill a ring of the default preset with rows, save it three times, load it."""
    fields = {"capacity": rows, "total_frames": rows + 2 * new_rows, "warmup_frames": 0, "loop": "device"}
    config = dataclasses.replace(PRESETS["cartpole"], **fields)
    run = jaxdqn.make_device_run(config)
    state = fill_replay(run, rows, noise)
    with tempfile.TemporaryDirectory() as folder:
        states = States(Path(folder) / "states", keep=2, with_replay=True)
        small = state._replace(replay=state.replay._replace(size=jax.numpy.minimum(256, state.replay.size)))
        States(Path(folder) / "warm-up", keep=1, with_replay=True).save(1, small, RECORD)  # imports and compilation
        before = peak_bytes(reset=True)
        began = time.monotonic()
        path = states.save(rows, state, RECORD)
        first = time.monotonic() - began
        extra = peak_bytes() - before
        seconds = []
        for repeat in (1, 2):
            key = jax.random.key(repeat)
            run_state = collect(run, run.start(state, key), new_rows // config.frames_per_batch)
            state = jax.block_until_ready(run_state.agent)
            began = time.monotonic()
            path = states.save(rows + repeat * new_rows, state, RECORD)
            seconds.append(time.monotonic() - began)
        disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        num_bytes = run.agent.replay.num_bytes
        began = time.monotonic()
        states.load(states.newest(), run.agent, run.agent.init(key))
        return Cost(num_bytes, first, *seconds, extra, disk, time.monotonic() - began)


def fill_replay(run: DeviceRun, rows: int, noise: bool) -> AgentState:
    """Return an agent's state with a full ring."""
    if not noise:
        return jax.block_until_ready(collect(run, run.init(jax.random.key(0)), rows // 32).agent)
    state = run.agent.init(jax.random.key(0))
    ring = state.replay
    obs = jax.random.bits(jax.random.key(2), ring.rows.obs.shape, "uint8")
    full = ring._replace(rows=ring.rows._replace(obs=obs), size=jax.numpy.int32(rows // obs.shape[1]))
    return jax.block_until_ready(state._replace(replay=full))


def collect(run: DeviceRun, state: jaxdqn.RunState, batches: int) -> jaxdqn.RunState:
    """Collect some batches without learning."""
    step = jaxdqn.jit(lambda s: jax.lax.fori_loop(0, batches, lambda _, s: run.collect(s)[0], s), donate_argnums=0)
    return step(state)


def peak_bytes(*, reset: bool = False) -> int:
    """Return the peak memory of this process since the last reset; only on Linux."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
        return psutil.Process().memory_info().rss
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def row_of(content: str, cost: Cost) -> dict[str, str]:
    """Return the measurements of one ring as a row of the table."""
    return {
        "content": content,
        "replay": f"{cost.replay_bytes / 1e6:.0f} MB",
        "first": f"{cost.first_seconds:.2f} s",
        "second": f"{cost.second_seconds:.2f} s",
        "from the third on": f"{cost.third_seconds:.2f} s",
        "on disk": f"{cost.disk_bytes / 1e6:.1f} MB",
        "additional memory": f"{cost.extra_bytes / cost.replay_bytes:.2f} times replay",
        "verified and loaded": f"{cost.load_seconds:.2f} s",
    }


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Measure what a checkpoint with replay costs.")
    parser.add_argument("--rows", type=positive, default=100_000, help="size of the ring")
    parser.add_argument("--new-rows", type=positive, default=3_000, help="new rows before the second and the third")
    parser.add_argument("--output", type=Path, default=Path("runs/checkpoint-cost"))
    options = parser.parse_args(args)
    contents = {"frames of CartPole": False, "noise, which does not compress": True}
    if options.new_rows < PRESETS["cartpole"].frames_per_batch:
        parser.error(f"--new-rows {options.new_rows} must be a batch at least: {PRESETS['cartpole'].frames_per_batch}")
    try:
        rows = [
            row_of(content, measure(options.rows, noise=noise, new_rows=options.new_rows))
            for content, noise in contents.items()
        ]
    except ValueError as error:
        parser.error(str(error))
    write_table(options.output / "checkpoint_cost.csv", rows)
    print(markdown(rows))


if __name__ == "__main__":
    main()
