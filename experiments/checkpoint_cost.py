"""Measure what a checkpoint with replay costs: time that training waits, memory, and bytes on disk.

    python3 experiments/checkpoint_cost.py --rows 100000

The argument `--rows` is the size of the ring. It is filled with frames of CartPole, and then with noise, which cannot
be compressed. Each is saved three times, with 3,000 new rows before the second and the third time, and loaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import jax
import psutil
from shared.command_line import positive

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
        small = state._replace(replay=state.replay._replace(size=jax.numpy.int32(256)))
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


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Measure what a checkpoint with replay costs.")
    parser.add_argument("--rows", type=positive, default=100_000, help="size of the ring")
    options = parser.parse_args()
    for noise in (False, True):
        cost = measure(options.rows, noise=noise)
        print(
            f"{'noise' if noise else 'frames of CartPole'}: replay {cost.replay_bytes / 1e6:.0f} MB; first "
            f"{cost.first_seconds:.2f} s, after 3,000 new rows {cost.second_seconds:.2f} s, after 3,000 more "
            f"{cost.third_seconds:.2f} s; extra memory "
            f"{cost.extra_bytes / cost.replay_bytes:.2f} times replay; on disk {cost.disk_bytes / 1e6:.1f} MB; "
            f"verified and loaded in {cost.load_seconds:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
