"""What an all-reduce costs beside an update: on paper for accelerators, measured for processes of this machine.

    python3 experiments/scaling.py                  the table of the README
    python3 experiments/scaling.py --processes 2    and an update of one process beside one of two, a core for each

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
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec as P
from shared.command_line import positive

import jaxdqn
from jaxdqn.parallel import AXIS, agent_of, make_mesh
from jaxdqn.presets import PRESETS
from jaxdqn.types import Rows

FLOPS_A_SECOND = 1e14
"""Of an H100: a fifth of the 494.7 TFLOP/s that its data sheet has for dense TF32, which is what JAX multiplies in."""

SHARE = 0.1
"""Of an update's time that the all-reduce may take."""


class Link(NamedTuple):
    """What connects devices.

    Attributes:
        name: What it is called.
        devices: How many take part.
        bandwidth: Bytes a second that a device sends, at most.
        latency: Seconds of a step, however little is sent.
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


class Work(NamedTuple):
    """What an update does.

    Attributes:
        gradient_bytes: What is all-reduced.
        flops: Floating point operations for one transition.
    """

    gradient_bytes: int
    flops: float


def work_of(preset: str) -> Work:
    """Of a preset, by XLA's own count of what it is given."""
    config = dataclasses.replace(PRESETS[preset], batch_size=32, updates_per_batch=1)
    agent = _agent(config)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    batch = jax.eval_shape(agent.sample, state.replay, jax.random.key(0))
    flops = agent.update.lower(state.learner, batch).cost_analysis()["flops"]  # type: ignore[attr-defined]
    params = jax.tree.leaves(state.learner.params)
    return Work(sum(leaf.size * leaf.dtype.itemsize for leaf in params), flops / config.batch_size)


def all_reduce_seconds(num_bytes: int, link: Link) -> float:
    """Of a ring."""
    return 2 * (link.devices - 1) * (num_bytes / link.devices / link.bandwidth + link.latency)


def batch_for(work: Work, link: Link) -> int:
    """Transitions of a device from which on the all-reduce is at most `SHARE` of an update."""
    update = all_reduce_seconds(work.gradient_bytes, link) * (1 - SHARE) / SHARE
    return round(update * FLOPS_A_SECOND / work.flops)


def table() -> str:
    """The arithmetic, as the README has it."""
    lines = [
        f"| preset | sent an update | link | all-reduce | batch of a device at which it is {SHARE:.0%} |",
        "|---|---|---|---|---|",
    ]
    for preset in ("cartpole", "torchrl"):
        work = work_of(preset)
        for index, link in enumerate(LINKS):
            first = f"`{preset}` | {work.gradient_bytes / 1e6:.2f} MB" if index == 0 else " | "
            seconds = all_reduce_seconds(work.gradient_bytes, link)
            lines.append(f"| {first} | {link.name} | {seconds * 1e3:.3f} ms | {batch_for(work, link):,} |")
    return "\n".join(lines)


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
    """Seconds of an update, and of its all-reduce alone, of processes with a core each, joined or each for itself."""
    processes = []
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    for index in range(count):
        words = [sys.executable, __file__, "--preset", preset, "--turns", str(turns), "--core", str(index)]
        words += ["--port", str(port), "--processes", str(count)] if joined else ["--port", str(port + index)]
        processes.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
    said = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    return {name: max(one[name] for one in said) for name in said[0]}


def measured(preset: str, count: int, turns: int) -> str:
    """What an update of several processes takes, beside one of each for itself, and what the arithmetic makes of it."""
    alone = measure(preset, 1, turns, joined=False)["update"] * 1e3
    apart = measure(preset, count, turns, joined=False)["update"] * 1e3
    joined = {name: value * 1e3 for name, value in measure(preset, count, turns, joined=True).items()}
    return "\n".join(
        (
            f"{preset}, 32 transitions of a process, a core each, milliseconds of an update:",
            f"one process {alone:.1f}, {count} at once that are not joined {apart:.1f}, joined {joined['update']:.1f};",
            f"an all-reduce alone {joined['all_reduce']:.1f}.",
            f"Of what {count} cores do, {apart / joined['update']:.2f} is left when they are joined; "
            f"by the sum of the parts {apart / (apart + joined['all_reduce']):.2f}.",
        )
    )


def be_one(options: argparse.Namespace) -> dict[str, float]:
    """One of the processes that `measure` starts."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[options.core]})
    index = options.core if options.processes > 1 else 0
    jax.distributed.initialize(f"127.0.0.1:{options.port}", options.processes, index)
    base = PRESETS[options.preset]
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
    """Print the table, and what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=positive, default=1, help="measure so many beside one")
    parser.add_argument("--preset", choices=list(PRESETS), default="cartpole", help="whose network is measured")
    parser.add_argument("--turns", type=positive, default=20, help="of eight updates each")
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options: Any = parser.parse_args(args)
    if options.processes > len(os.sched_getaffinity(0)):
        parser.error(f"--processes {options.processes} are more than the {len(os.sched_getaffinity(0))} cores")
    if options.core is not None:
        print(json.dumps(be_one(options)))
        return
    print(table())
    if options.processes > 1:
        print(measured(options.preset, options.processes, options.turns))


if __name__ == "__main__":
    main()
