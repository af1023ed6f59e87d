"""Train and evaluate many runs in one program; shared by the experiments on the device."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdqn
from jaxdqn.config import Config
from jaxdqn.loops.device_run import DeviceRun, RunState
from jaxdqn.schedules import config_optimizer
from jaxdqn.storage.atomic import atomic_write


class Scores(NamedTuple):
    """The scores of all runs at one evaluation.

    Attributes:
        frames: Frames that each run has collected.
        returns: Greedy returns `[S, E]`: one row for each run, one column for each episode.
    """

    frames: int
    returns: np.ndarray


def scaled_optimizer(
    config: Config, optimizer: optax.GradientTransformation | None = None
) -> optax.GradientTransformation:
    """Return an optimizer with a factor on its updates, in its state so that each vmapped run has its own.

    Args:
        config: The config.
        optimizer: The optimizer; None: the config's.
    """
    optimizer = config_optimizer(config) if optimizer is None else optimizer
    return optax.chain(optimizer, optax.inject_hyperparams(optax.scale)(step_size=1.0))


def with_learning_rate(state: RunState, factor: Any) -> RunState:
    """Return a new run's state with the config's learning rate multiplied by a factor."""
    learner = state.agent.learner
    opt_state = optax.tree.set(learner.opt_state, step_size=jnp.float32(factor))
    return state._replace(agent=state.agent._replace(learner=learner._replace(opt_state=opt_state)))


def train_side_by_side(
    config: Config,
    seeds: Sequence[int],
    *,
    factors: Sequence[float] | None = None,
    every: int = 1_500,
    episodes: int = 10,
    optimizer: optax.GradientTransformation | None = None,
    **pieces: Any,
) -> Iterator[Scores]:
    """Train one run for each seed, all in one program, and evaluate them with greedy episodes during training.

    Args:
        config: The config of the runs; its seed is not used for them.
        seeds: The seed of each run.
        factors: A factor on the learning rate of each run; None leaves it unchanged.
        every: Frames between two evaluations; the last one is at the end.
        episodes: Episodes of an evaluation, on the functional environment.
        optimizer: In place of the config's.
        pieces: Pieces of the agent's own. See `make_device_run`.

    Returns:
        An iterator over the scores of all runs. Iterating over it trains the runs.

    Raises:
        ValueError: Before the first iteration, if the config cannot run, or the replays of all runs do not fit.
    """
    run = jaxdqn.make_device_run(config, optimizer=scaled_optimizer(config, optimizer), num_seeds=len(seeds), **pieces)
    return _train(run, config, seeds, factors, every, episodes)


def _train(
    run: DeviceRun, config: Config, seeds: Sequence[int], factors: Sequence[float] | None, every: int, episodes: int
) -> Iterator[Scores]:
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    states = jax.vmap(run.init)(keys)
    states = jax.vmap(with_learning_rate)(states, jnp.ones(len(seeds)) if factors is None else jnp.asarray(factors))
    play = jaxdqn.make_device_evaluation(run.env, run.agent.q_values, episodes=episodes, frame_stack=run.obs.stack)
    evaluate = jaxdqn.jit(jax.vmap(play, (0, None)))
    collect, learn = (make_chunk(run, learning=learning) for learning in (False, True))
    done, batches_between = 0, max(every // config.frames_per_batch, 1)
    while done < config.num_batches:
        if done < run.warm_up_batches:
            length = run.warm_up_batches
            states = collect(states, length)
        else:
            length = min(config.num_batches, (done // batches_between + 1) * batches_between) - done
            states = learn(states, length)
        done += length
        if done > run.warm_up_batches and (done % batches_between == 0 or done == config.num_batches):
            params = states.agent.learner.greedy_params(config.greedy_params)
            played = evaluate(params, jax.random.fold_in(jax.random.key(2**31), done))
            yield Scores(done * config.frames_per_batch, np.asarray(played))


def make_chunk(run: DeviceRun, *, learning: bool) -> Any:
    """Return `(states, batches) -> states`, which advances all runs by any number of batches in one program."""
    batch = run.batch if learning else run.collect

    @partial(jaxdqn.jit, donate_argnums=0)
    def chunk(states: RunState, length: Any) -> RunState:
        return jax.lax.fori_loop(0, length, lambda _, states: jax.vmap(batch)(states)[0], states)

    return lambda states, length: chunk(states, jnp.int32(length))


def interquartile_mean(values: np.ndarray) -> float:
    """Return the mean of the middle half.

    References:
        Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice (2021), section 4.3.
    """
    ordered = np.sort(np.ravel(values))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def bootstrap_interval(values: np.ndarray, *, level: float = 0.95, draws: int = 2_000) -> tuple[float, float]:
    """Return a percentile interval of the interquartile mean, by resampling whole runs: rows of `values [S, E]`."""
    rng = np.random.default_rng(0)
    means = [interquartile_mean(values[rng.integers(len(values), size=len(values))]) for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interquartile_text(values: np.ndarray) -> str:
    """Return the interquartile mean of `values [S, E]` and its 95 % bootstrap interval as text."""
    low, high = bootstrap_interval(values)
    return f"{interquartile_mean(values):.1f} [{low:.1f}, {high:.1f}]"


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a CSV file atomically."""
    with atomic_write(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table of a CSV file's rows."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
