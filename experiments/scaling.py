"""Compare the cost of an all-reduce with that of an update: calculated for GPUs, measured for processes of one machine.

    python3 experiments/scaling.py                  calculates, and writes scaling.csv
    python3 experiments/scaling.py --processes 2    also measures, for one process and two: scaling_measured.csv

Arguments: `--processes`, `--output` for the files, and for the measurement `--presets` (cartpole and torchrl) and
`--turns` (of eight updates each).

Weak scaling: each device keeps its batch, and more devices make the batch of an update larger. A ring all-reduce of G
bytes over n devices takes 2 (n - 1) steps of G / n bytes each: 2 (n - 1) (G / (n bandwidth) + latency) seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec as P
from shared.command_line import positive
from shared.seeds import markdown, write_table

import jaxdqn
from jaxdqn.parallel.mesh import AXIS, make_mesh
from jaxdqn.parallel.parallel_agent import agent_of
from jaxdqn.presets import PRESETS
from jaxdqn.types import Rows

FLOPS_A_SECOND = 1e14
"""Speed of an H100: a fifth of the 494.7 TFLOP/s of dense TF32, JAX's precision of products, in its data sheet."""

ALL_REDUCE_SHARE = 0.1
"""Largest share of an update's time that the all-reduce may take."""


class Link(NamedTuple):
    """A connection between devices.

    Attributes:
        name: Name in the table.
        devices: Number of devices.
        bandwidth: Largest number of bytes a second that a device sends.
        latency: Smallest time of a step, in seconds, for any number of bytes.
    """

    name: str
    devices: int
    bandwidth: float
    latency: float


LINKS = (
    Link("NVLink 4, 8 GPUs of a host", 8, 450e9, 2e-6),
    Link("InfiniBand NDR, 2 hosts of 8", 16, 50e9, 5e-6),
    Link("Ethernet, 100 Gbit/s, 2 hosts", 2, 12.5e9, 25e-6),
    Link("Ethernet, 10 Gbit/s, 2 hosts", 2, 1.25e9, 25e-6),
)


class UpdateCost(NamedTuple):
    """The cost of an update.

    Attributes:
        gradient_bytes: Number of bytes to all-reduce.
        flops: Floating point operations for one transition.
    """

    gradient_bytes: int
    flops: float


def update_cost(preset: str) -> UpdateCost:
    """Return the cost of a preset's update, with the operations that XLA counts before its optimisations."""
    config = dataclasses.replace(PRESETS[preset], batch_size=32, updates_per_batch=1)
    agent = _agent(config)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    batch = jax.eval_shape(agent.sample, state.replay, jax.random.key(0))
    flops = agent.update.lower(state.learner, batch).cost_analysis()["flops"]  # type: ignore[attr-defined]
    params = jax.tree.leaves(state.learner.params)
    return UpdateCost(sum(leaf.size * leaf.dtype.itemsize for leaf in params), flops / config.batch_size)


def all_reduce_seconds(num_bytes: int, link: Link) -> float:
    """Return the time of a ring all-reduce."""
    return 2 * (link.devices - 1) * (num_bytes / link.devices / link.bandwidth + link.latency)


def batch_for(cost: UpdateCost, link: Link) -> int:
    """Return the smallest batch of a device at which the all-reduce takes at most `ALL_REDUCE_SHARE` of an update."""
    update = all_reduce_seconds(cost.gradient_bytes, link) * (1 - ALL_REDUCE_SHARE) / ALL_REDUCE_SHARE
    return round(update * FLOPS_A_SECOND / cost.flops)


def table() -> list[dict[str, str]]:
    """Return the calculated costs, a row for each preset and link."""
    rows = []
    for preset in ("cartpole", "torchrl"):
        cost = update_cost(preset)
        for link in LINKS:
            rows.append(
                {
                    "preset": f"`{preset}`",
                    "sent an update": f"{cost.gradient_bytes / 1e6:.2f} MB",
                    "link": link.name,
                    "all-reduce": f"{all_reduce_seconds(cost.gradient_bytes, link) * 1e3:.3f} ms",
                    f"batch of a device at which it is {ALL_REDUCE_SHARE:.0%}": f"{batch_for(cost, link):,}",
                }
            )
    return rows


def _agent(config: jaxdqn.Config) -> jaxdqn.Agent:
    obs = jaxdqn.ObsSpec((config.frame_size, config.frame_size), np.uint8, config.frame_stack)
    stats = jaxdqn.ObservationStats(np.zeros(config.frame_stack), np.ones(config.frame_stack))
    return agent_of(
        config,
        num_processes=jax.process_count(),
        num_actions=2,
        obs=obs,
        obs_stats=stats,
    )


def measure(preset: str, count: int, turns: int, *, joined: bool) -> dict[str, float]:
    """Return the seconds of an update and of an all-reduce alone, for processes with a core each.

    Args:
        preset: The preset whose network is used.
        count: Number of processes.
        turns: Number of measurements.
        joined: Whether the processes train together; otherwise each trains alone, at the same time.
    """
    processes = []
    with socket.socket() as free_socket:
        free_socket.bind(("127.0.0.1", 0))
        port = free_socket.getsockname()[1]
    for index in range(count):
        words = [sys.executable, __file__, "--presets", preset, "--turns", str(turns), "--core", str(index)]
        words += ["--port", str(port), "--processes", str(count)] if joined else ["--port", str(port + index)]
        processes.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
    results = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    return {name: max(result[name] for result in results) for name in results[0]}


def measured(preset: str, count: int, turns: int) -> dict[str, str]:
    """Return measured times of an update: one process, several separate ones, and several joined ones."""
    alone = measure(preset, 1, turns, joined=False)["update"] * 1e3
    separate = measure(preset, count, turns, joined=False)["update"] * 1e3
    joined = {name: value * 1e3 for name, value in measure(preset, count, turns, joined=True).items()}
    return {
        "preset": f"`{preset}`",
        "one process": f"{alone:.1f} ms",
        f"{count} separate processes": f"{separate:.1f} ms",
        f"{count} joined": f"{joined['update']:.1f} ms",
        "all-reduce alone": f"{joined['all_reduce']:.1f} ms",
        "efficiency": f"{separate / joined['update']:.2f}",
        "expected of the sum": f"{separate / (separate + joined['all_reduce']):.2f}",
    }


def run_process(options: argparse.Namespace) -> dict[str, float]:
    """Run the measurements of one of the processes that `measure` starts."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[options.core]})
    index = options.core if options.processes > 1 else 0
    jax.distributed.initialize(f"127.0.0.1:{options.port}", options.processes, index)
    base = PRESETS[options.presets[0]]
    config = dataclasses.replace(
        base,
        num_envs=options.processes,
        frames_per_batch=32 * options.processes,
        batch_size=32 * options.processes,
        updates_per_batch=8,
        capacity=512 * options.processes,
        warmup_frames=32 * options.processes,
    )
    agent = _agent(config)
    state = agent.init(jax.random.key(0))
    rng = np.random.default_rng(options.core)
    flat = np.zeros((256, 1))
    obs = rng.integers(0, 255, (256, 1, config.frame_size, config.frame_size)).astype(np.uint8)
    rows = Rows(obs, flat.astype(np.int32), flat.astype(np.float32), flat > 0, flat > 0, flat.astype(np.int32))
    state = agent.observe(state, rows)
    mesh = make_mesh(1, options.processes)
    mean = jax.shard_map(lambda x: jax.lax.pmean(x, AXIS), mesh=mesh, in_specs=P(AXIS), out_specs=P(AXIS))
    reduce = jax.jit(mean)
    size = sum(leaf.size for leaf in jax.tree.leaves(state.learner.params))
    vector = jax.make_array_from_process_local_data(
        jax.sharding.NamedSharding(mesh, P(AXIS)), np.ones(size, np.float32)
    )
    updates, reduces = [], []
    for turn in range(options.turns):
        began = time.perf_counter()
        state, metrics = agent.learn(state)
        jax.block_until_ready(metrics)
        middle = time.perf_counter()
        vector = reduce(vector).block_until_ready()
        if turn:
            updates.append((middle - began) / config.updates_per_batch)
            reduces.append(time.perf_counter() - middle)
    return {"update": statistics.median(updates), "all_reduce": statistics.median(reduces)}


def main(args: Sequence[str] | None = None) -> None:
    """Print the table, and the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=positive, default=1, help="number of processes to compare with one")
    presets = {"nargs": "+", "choices": list(PRESETS), "default": ["cartpole", "torchrl"]}
    parser.add_argument("--presets", **presets, help="presets whose networks are measured")  # type: ignore[arg-type]
    parser.add_argument("--output", type=Path, default=Path("runs/scaling"))
    parser.add_argument("--turns", type=positive, default=20, help="measurements, of eight updates each")
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options: Any = parser.parse_args(args)
    if options.processes > len(os.sched_getaffinity(0)):
        parser.error(f"--processes {options.processes} are more than the {len(os.sched_getaffinity(0))} cores")
    if options.core is not None:
        print(json.dumps(run_process(options)))
        return
    rows = table()
    write_table(options.output / "scaling.csv", rows)
    print(markdown(rows))
    if options.processes > 1:
        rows = [measured(preset, options.processes, options.turns) for preset in options.presets]
        write_table(options.output / "scaling_measured.csv", rows)
        print(markdown(rows))


if __name__ == "__main__":
    main()
