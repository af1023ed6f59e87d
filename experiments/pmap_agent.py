"""Train with the agent's functions under `jax.pmap`, on pixel CartPole that is drawn on the devices.

    JAX_NUM_CPU_DEVICES=4 python3 experiments/pmap_agent.py --frames 4096

The argument `--frames` is the length of the run. This is an example for code that still uses `jax.pmap`, which is in
maintenance: since JAX 0.8 it is `jit` of `shard_map`. jaxdqn itself uses a mesh (`--num-devices N`, or
`jaxdqn.make_parallel_agent`), which does the same with less code; both average gradients with one all-reduce an update.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
from shared.command_line import positive

import jaxdqn
from jaxdqn.config import Config
from jaxdqn.loops.device_run import DeviceRun, RunState
from jaxdqn.parallel.mesh import part_of
from jaxdqn.presets import PRESETS

AXIS = "devices"


def make_run(config: Config) -> DeviceRun:
    """Return a device's part of a run, whose gradients are averaged over `AXIS`: call it only under that axis."""
    return jaxdqn.make_device_run(part_of(config, config.num_devices), axis_name=AXIS)


def train(config: Config, frames: int) -> tuple[RunState, dict[str, np.ndarray]]:
    """Train on all devices of the config.

    Returns:
        The states, with a leading axis of devices, and the last batch's metrics.
    """
    run = make_run(config)

    @partial(jax.pmap, axis_name=AXIS)
    def init(key: jax.Array) -> RunState:
        # A common key for the parameters, which must be the same on all devices, and a separate key for all else.
        device_key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
        act_key, sample_key, env_key = jax.random.split(device_key, 3)
        agent = run.agent.init(key)
        return run.start(agent._replace(actor=agent.actor._replace(key=act_key), key=sample_key), env_key)

    collect = jax.pmap(lambda state: run.collect(state)[0], axis_name=AXIS, donate_argnums=0)
    batch = jax.pmap(run.batch, axis_name=AXIS, donate_argnums=0)
    states: Any = init(jax.numpy.stack([jax.random.key(config.seed)] * config.num_devices))
    metrics: dict[str, np.ndarray] = {}
    for index in range(min(frames // config.frames_per_batch, config.num_batches)):
        if index < run.warm_up_batches:
            states = collect(states)
        else:
            states, trace = batch(states)
            metrics = {name: np.asarray(values) for name, values in trace.metrics.items()}
    return states, metrics


def main() -> None:
    """Parse the command line, train, print."""
    parser = argparse.ArgumentParser(description="Train with the agent's functions under jax.pmap.")
    parser.add_argument("--frames", type=positive, default=4_096)
    options = parser.parse_args()
    count = jax.local_device_count()
    try:
        config = dataclasses.replace(PRESETS["cartpole"], num_devices=count, loop="device")
        states, metrics = train(config, options.frames)
    except ValueError as error:
        parser.error(str(error))
    updates = np.asarray(states.agent.learner.num_updates)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(states.agent.learner.params)]
    same = all(np.array_equal(leaf[0], part) for leaf in leaves for part in leaf)
    loss = float(metrics["loss"].mean()) if metrics else float("nan")
    print(f"{count} devices, {updates[0]} updates, loss {loss:.4f}, parameters the same on all: {same}")


if __name__ == "__main__":
    main()
