"""Show what each algorithm and prioritised replay cost, as ratios of times measured in the same run.

    python3 -m pip install -e '.[bench]'
    python3 experiments/algorithm_costs.py [--rounds 20] [--output runs/algorithm-costs]

Arguments: `--only PART ...` (`algorithms`, `replay`, `peer`), `--rounds` (measurements of each), `--output`. It prints
a table and writes `algorithm_costs.csv`. What is compared is called alternately; each figure is a median of ratios.

`algorithms`: updates of the tutorial's network at batch 32, relative to plain DQN's. `replay`: learning with
prioritised replay relative to uniform replay, at 100,000 and 1,000,000 rows. `peer`: sampling and setting priorities,
relative to flashbax's prioritised buffer with the same content.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from shared.command_line import positive
from shared.seeds import markdown, write_table
from shared.throughput_rows import has
from shared.update_costs import costs, learning_of, time_ratios

import jaxdqn
from jaxdqn.algorithms import ALGORITHMS, with_algorithm
from jaxdqn.presets import PRESETS
from jaxdqn.types import Rows

FRAMES = jaxdqn.ObsSpec((64, 64), np.uint8, 4)
TUTORIAL = dataclasses.replace(
    PRESETS["torchrl"], batch_size=32, updates_per_batch=4, capacity=2_000, total_frames=10**6
)
Row = dict[str, str]


def row(what: str, time: float, relative_to: str, arithmetic: str = "") -> Row:
    """Return a row of the table."""
    return {"what": what, "time": f"{time:.2f}", "arithmetic": arithmetic, "relative to": relative_to}


def algorithm_rows(rounds: int) -> Iterator[Row]:
    """Compare updates of the tutorial's network, with double Q-learning in none but Rainbow and `double`."""
    configs = {name: with_algorithm(TUTORIAL, name) for name in ALGORITHMS}
    configs["iqn, 64 fractions"] = dataclasses.replace(configs["iqn"], iqn_taus=64)
    for name, cost in costs(configs, FRAMES, 2, rounds).items():
        yield row(name, cost.time, "an update of dqn", f"{cost.operations:.2f}")


def replay_rows(rounds: int) -> Iterator[Row]:
    """Compare learning from large rings."""
    for capacity in (100_000, 1_000_000):
        calls = {}
        for name, prioritized in (("uniform", False), ("prioritized", True)):
            config = dataclasses.replace(TUTORIAL, capacity=capacity, prioritized=prioritized)
            calls[name] = learning_of(config, FRAMES, 2)
        ratio = time_ratios(calls, rounds)["prioritized"]
        yield row(f"prioritized, {capacity:,} rows", ratio, "an update with uniform replay")


def peer_rows(rounds: int) -> Iterator[Row]:
    """Compare drawing 32 transitions of one step and setting their priorities, 8 times in one call."""
    for capacity in (100_000, 1_000_000):
        calls = {"flashbax": _flashbax(capacity), "ours": _ours(capacity)}
        ratio = time_ratios(calls, rounds)["ours"]
        yield row(f"sample and set priorities, {capacity:,} rows", ratio, "flashbax")


PARTS = {"algorithms": algorithm_rows, "replay": replay_rows, "peer": peer_rows}


def _content(capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors and priorities for a replay of so many rows."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(capacity, 4)).astype(np.float32), rng.exponential(size=capacity).astype(np.float32)


def _ours(capacity: int) -> Any:
    obs, priority = _content(capacity)
    replay = jaxdqn.make_replay(
        capacity=capacity,
        num_envs=1,
        obs_shape=(4,),
        obs_dtype=np.float32,
        batch_shape=(32,),
        n_steps=1,
        gamma=0.99,
        priority_alpha=0.6,
    )
    zeros = np.zeros((capacity, 1))
    rows = Rows(obs[:, None], np.int32(zeros), np.float32(zeros), zeros > 0, zeros > 0, np.int32(zeros))
    state = replay.update_priorities(replay.add(replay.init(), rows), jnp.arange(capacity), jnp.asarray(priority))

    @partial(jax.jit, donate_argnums=0)
    def eight(priorities: Any, ring: Any, key: jax.Array) -> Any:
        def once(priorities: Any, key: jax.Array) -> Any:
            now = ring._replace(priorities=priorities)
            sample = replay.sample(now, key)
            changed = replay.update_priorities(now, sample.index, jnp.abs(sample.batch.obs[:, 0]))
            return changed.priorities, sample.weight.sum()

        return jax.lax.scan(once, priorities, jax.random.split(key, 8))

    priorities, ring, key = state.priorities, state._replace(priorities=None), jax.random.key(0)

    def call() -> Any:
        nonlocal priorities, key
        key = jax.random.split(key, 1)[0]
        priorities, total = eight(priorities, ring, key)
        return total

    return call


def _flashbax(capacity: int) -> Any:
    import flashbax

    obs, priority = _content(capacity)
    buffer = flashbax.make_prioritised_flat_buffer(
        max_length=capacity,
        min_length=2,
        sample_batch_size=32,
        priority_exponent=0.6,
        add_sequences=True,
        device=jax.default_backend(),
    )
    state = buffer.init({"obs": obs[0], "action": np.int32(0), "reward": np.float32(0), "done": np.bool_(False)})
    add, zeros = jax.jit(buffer.add, donate_argnums=0), np.zeros(1000)
    for first in range(0, capacity, 1000):
        part = obs[first : first + 1000]
        rows = {"obs": part, "action": np.int32(zeros), "reward": np.float32(zeros), "done": zeros > 0}
        state = add(state, rows)
    indices = jnp.arange(capacity - 1)
    state = jax.jit(buffer.set_priorities, donate_argnums=0)(state, indices, jnp.asarray(priority[:-1]))

    @partial(jax.jit, donate_argnums=0)
    def eight(state: Any, key: jax.Array) -> Any:
        def once(state: Any, key: jax.Array) -> Any:
            sample = buffer.sample(state, key)
            weight = (capacity * sample.probabilities) ** -1.0
            priority = jnp.abs(sample.experience.first["obs"][:, 0])
            return buffer.set_priorities(state, sample.indices, priority), weight.sum()

        return jax.lax.scan(once, state, jax.random.split(key, 8))

    key = jax.random.key(0)

    def call() -> Any:
        nonlocal state, key
        key = jax.random.split(key, 1)[0]
        state, total = eight(state, key)
        return total

    return call


def main(args: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the CSV file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=positive, default=20)
    parser.add_argument("--output", type=Path, default=Path("runs/algorithm-costs"))
    options = parser.parse_args(args)
    rows = []
    for part in options.only:
        if part == "peer" and not has("flashbax"):
            print("flashbax is not installed: `python3 -m pip install -e '.[bench]'`")
            continue
        rows.extend(PARTS[part](options.rounds))
    if rows:
        options.output.mkdir(parents=True, exist_ok=True)
        write_table(options.output / "algorithm_costs.csv", rows)
        print(markdown(rows))


if __name__ == "__main__":
    main()
