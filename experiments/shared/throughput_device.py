"""The rows of `throughput.py` about training on the device: environments that draw, and many seeds in one program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdqn
from jaxdqn.loops.device_run import DeviceRun, RunState
from jaxdqn.presets import PRESETS
from shared.throughput_rows import NUM_ENVS, Row, median_seconds

STEPS = 100
SEEDS = 8


def device_rows(rounds: int) -> Iterator[Row]:
    """Yield the rows about drawing and about many seeds."""
    yield from drawing_rows(rounds)
    yield from seeds_rows(rounds)


def drawing_rows(rounds: int) -> Iterator[Row]:
    """Compare frames of eight CartPoles (physics and a 64x64 grey picture) with gymnasium and pygame in one process."""
    envs = jaxdqn.vectorise(jaxdqn.make_cartpole(), NUM_ENVS)

    @jax.jit
    def ours(key: jax.Array) -> jax.Array:
        states, _ = envs.reset(key)

        def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            states, last = carry
            actions = jax.random.randint(key, (NUM_ENVS,), 0, 2)
            states, answer = envs.step(key, states, last, actions)
            return (states, answer.terminated & ~last), answer.obs.sum()  # the sum makes XLA compute every pixel

        return jax.lax.scan(step, (states, jnp.zeros(NUM_ENVS, bool)), jax.random.split(key, STEPS))[1]

    theirs = jaxdqn.make_vector_env(jaxdqn.make_env_fn("CartPole-v1"), NUM_ENVS)
    theirs.reset(seed=0)
    actions = np.arange(NUM_ENVS) % 2
    key = jax.random.key(0)
    found = median_seconds(rounds * 5, ours=lambda: ours(key), peer=lambda: theirs.step(actions)[1])
    theirs.close()
    note = "gymnasium and pygame in one process, with our grey conversion and resizing"
    yield Row("frame of CartPole in JAX", found["ours"] / STEPS / NUM_ENVS, found["peer"] / NUM_ENVS, "s", note)


def seeds_rows(rounds: int) -> Iterator[Row]:
    """Compare a batch of the default preset, with updates: eight seeds in one program, and one seed eight times."""
    config = dataclasses.replace(PRESETS["cartpole"], total_frames=4_000, capacity=4_000)
    run = jaxdqn.make_device_run(config)
    together, alone = make_batch_call(run, SEEDS), make_batch_call(run, None)
    found = median_seconds(rounds, ours=together, peer=alone)
    yield Row("batch of 8 seeds of cartpole", found["ours"], SEEDS * found["peer"], "s", "one seed after another")


def make_batch_call(run: DeviceRun, seeds: int | None) -> Callable[[], Any]:
    """Return a function that trains some seeds for one more batch; None trains one seed without `vmap`."""
    batch, init, keys = run.batch, run.init, jax.random.key(0)
    collect = run.collect
    if seeds is not None:
        batch, collect, init = jax.vmap(batch), jax.vmap(collect), jax.vmap(init)
        keys = jax.random.split(keys, seeds)
    warm_up = jaxdqn.jit(lambda state: jax.lax.fori_loop(0, run.warm_up_batches, lambda _, s: collect(s)[0], state))
    step = jaxdqn.jit(batch, donate_argnums=0)
    state: RunState = warm_up(init(keys))

    def call() -> Any:
        nonlocal state
        state, trace = step(state)
        return trace.metrics

    return call
