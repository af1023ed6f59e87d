"""The training loop on the device: chunks of batches in one program; it yields the same progress as the host loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxdqn.compilation import jit
from jaxdqn.config import Config
from jaxdqn.distributed.process_group import ProcessGroup
from jaxdqn.envs.vector.episodes import episodes_of
from jaxdqn.envs.vector.stepper import check_finite
from jaxdqn.loops.device_run import BatchTrace, DeviceRun, RunState
from jaxdqn.loops.finite import check_metrics_finite
from jaxdqn.loops.intervals import checkpoints_at, evaluates_at
from jaxdqn.loops.progress import Progress, gathered_episodes, learning_start_after

MAX_CHUNK_BATCHES = 64
"""Largest number of batches in a chunk: the capacity of its traces."""

CHUNK_SECONDS = 0.5
"""Time that a chunk should take: progress is shown, and Ctrl-C is handled, between chunks."""

Chunk = Callable[[RunState, Int[Array, ""]], tuple[RunState, BatchTrace]]


def device_loop(
    run: DeviceRun, state: RunState, config: Config, group: ProcessGroup | None = None
) -> Generator[Progress, None, None]:
    """Collect, observe and learn in chunks of batches, until the config's frames are collected.

    A chunk ends at an evaluation, at a checkpoint, at the start of learning, or after about half a second. Its batches
    are then yielded one by one; the division into chunks changes no number. If several processes train together, a
    chunk is one batch: each process collects in its own program, and all learn in a shared one.

    Args:
        run: The pure functions of the run.
        state: Their state, fresh or from an earlier loop, which is then continued; consumed.
        config: The run's config.
        group: See `host_loop`.

    Raises:
        FloatingPointError: If an observation, a reward, a loss or a gradient is not finite; all batches before it have
            been yielded by then.

    Yields:
        Progress after each batch; the last batch of a chunk has `state` and `run_state`.
    """
    group = group or ProcessGroup.alone()
    if group.count == 1:
        collect, learn, longest = _chunk(run.collect), _chunk(run.batch), MAX_CHUNK_BATCHES
    else:
        collect, learn, longest = _one_batch(run, learns=False), _one_batch(run, learns=True), 1
    frames, updates = int(state.agent.actor.frame), int(state.agent.learner.num_updates)
    done = frames // config.frames_per_batch
    with group.exchange():
        check_finite("first observation", np.asarray(state.cursor.obs), frames)
        if run.env.valid is not None:
            _check_flags_finite({"first image": np.asarray(jax.vmap(run.env.valid)(state.envs))[None]}, frames)
    warm_up = -(-learning_start_after(state.agent, run.agent, config.num_envs) // config.frames_per_batch) - 1
    stops = [batch for batch in range(1, config.num_batches + 1) if batch == warm_up or _is_stop(batch, config)]
    allowed = 1
    while done < config.num_batches:
        length = min(next(stop for stop in stops if stop > done) - done, allowed)
        learning = done >= warm_up
        started = time.monotonic()
        with group.name_lost_process():
            state, traces = (learn if learning else collect)(state, jnp.int32(length))
            traces = jax.device_get(traces)
        seconds = time.monotonic() - started
        # The time of a first chunk includes compilation and does not predict the next one: the limit at most doubles.
        allowed = int(np.clip(length * CHUNK_SECONDS / max(seconds, 1e-9), 1, min(2 * allowed, longest)))
        for index in range(length):
            ended, finite, metrics = jax.tree.map(lambda x, index=index: x[index], traces)
            with group.exchange() as exchange:
                _check_flags_finite(finite, frames)
                exchange.local = episodes_of(ended)
            done, frames = done + 1, frames + config.frames_per_batch
            updates += config.updates_per_batch if learning else 0
            if learning:
                check_metrics_finite(metrics, frames)
            is_last = index == length - 1
            yield Progress(
                frames=frames,
                updates=updates,
                epsilon=float(run.agent.epsilon(jnp.int32(frames))),
                episodes=gathered_episodes(exchange),
                metrics={name: float(value) for name, value in metrics.items()} if learning else {},
                state=state.agent if is_last else None,
                run_state=state if is_last else None,
            )


def _check_flags_finite(finite: dict[str, np.ndarray], frames: int) -> None:
    """Raise `FloatingPointError`, which names the first reward, observation or image of a batch that is not finite."""
    for name, flags in finite.items():
        if not flags.all():
            step, env = np.argwhere(~flags)[0]
            at = frames + step * flags.shape[1] + env + 1
            bounds = ", or not in [0, 1]," if "image" in name else ""
            raise FloatingPointError(f"the {name} of environment {env} is not finite{bounds} at frame {at:,}")


def _is_stop(batch: int, config: Config) -> bool:
    frames = batch * config.frames_per_batch
    return evaluates_at(config, frames) or checkpoints_at(config, frames)


def _one_batch(run: DeviceRun, *, learns: bool) -> Chunk:
    """Return a chunk of one batch: each process collects in its own program, and all learn in a shared one."""
    collect = jit(run.collect, donate_argnums=0)

    def chunk(state: RunState, length: Int[Array, ""]) -> tuple[RunState, BatchTrace]:
        state, trace = collect(state)
        if learns:
            learned, metrics = run.agent.learn(state.agent)
            state, trace = state._replace(agent=learned), trace._replace(metrics=jax.tree.map(jnp.mean, metrics))
        return state, jax.tree.map(lambda x: x[None], trace)

    return chunk


def _chunk(batch: Callable[[RunState], tuple[RunState, BatchTrace]]) -> Chunk:
    """Return a function that runs up to `MAX_CHUNK_BATCHES` batches in one program, compiled once for all lengths."""

    def chunk(state: RunState, length: Int[Array, ""]) -> tuple[RunState, BatchTrace]:
        trace_shape = jax.eval_shape(batch, state)[1]
        empty = jax.tree.map(lambda x: jnp.zeros((MAX_CHUNK_BATCHES, *x.shape), x.dtype), trace_shape)

        def body(index: Int[Array, ""], carry: Any) -> Any:
            state, traces = carry
            state, trace = batch(state)
            return state, jax.tree.map(lambda array, new: array.at[index].set(new), traces, trace)

        return jax.lax.fori_loop(0, length, body, (state, empty))

    return jit(chunk, donate_argnums=0)
