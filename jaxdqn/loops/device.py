"""The training loop on the device: chunks of batches in one program, progress a batch as the host loop yields it."""

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
from jaxdqn.distributed.processes import ProcessGroup
from jaxdqn.envs.vector.episodes import episodes_of
from jaxdqn.envs.vector.stepper import check_finite
from jaxdqn.loops.device_run import BatchTrace, DeviceRun, RunState
from jaxdqn.loops.finite import check_metrics_finite
from jaxdqn.loops.progress import Progress, evaluates_at, gathered_episodes, keeps_at, learning_start_after

LONGEST = 64
"""Batches of a chunk, at most: what its traces have room for."""

SECONDS = 0.5
"""How long a chunk should take, so that progress is seen, and Ctrl-C is heard."""

Chunk = Callable[[RunState, Int[Array, ""]], tuple[RunState, BatchTrace]]


def device_loop(
    run: DeviceRun, state: RunState, config: Config, group: ProcessGroup | None = None
) -> Generator[Progress, None, None]:
    """Collect, observe, learn in chunks of batches, until the config's frames are spent.

    A chunk ends where the config asks for an evaluation or a checkpoint, where learning starts, and where half a second
    has passed. Its batches are yielded one by one when it is done; how they were cut into chunks changes no number.
    Where several processes train together, a chunk is a batch: a program of this process collects it, and one of all
    learns from it.

    Args:
        run: The pure functions.
        state: Their state, fresh or from an earlier loop, which then goes on where it stopped; consumed.
        config: The run.
        group: As `host_loop` has it.

    Raises:
        FloatingPointError: If an observation, a reward, a loss or a gradient is not finite; batches before it have been
            yielded by then.

    Yields:
        Progress after each batch, of which the last one of a chunk has `state` and `run_state`.
    """
    group = group or ProcessGroup.alone()
    if group.count == 1:
        collect, learn, longest = _chunk(run.collect), _chunk(run.batch), LONGEST
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
        # A first chunk is compiled as well, and says little of how long the next will take: the limit at most doubles.
        allowed = int(np.clip(length * SECONDS / max(seconds, 1e-9), 1, min(2 * allowed, longest)))
        for index in range(length):
            ended, finite, metrics = jax.tree.map(lambda x, index=index: x[index], traces)
            with group.exchange() as exchange:
                _check_flags_finite(finite, frames)
                exchange.local = episodes_of(ended)
            done, frames = done + 1, frames + config.frames_per_batch
            updates += config.updates_per_batch if learning else 0
            if learning:
                check_metrics_finite(metrics, frames)
            whole = index == length - 1
            yield Progress(
                frames=frames,
                updates=updates,
                epsilon=float(run.agent.epsilon(jnp.int32(frames))),
                episodes=gathered_episodes(exchange),
                metrics={name: float(value) for name, value in metrics.items()} if learning else {},
                state=state.agent if whole else None,
                run_state=state if whole else None,
            )


def _check_flags_finite(finite: dict[str, np.ndarray], frames: int) -> None:
    """Raise `FloatingPointError` that names the first reward, observation or image of a batch that is not finite."""
    for name, fine in finite.items():
        if not fine.all():
            step, env = np.argwhere(~fine)[0]
            at = frames + step * fine.shape[1] + env + 1
            bounds = ", or not in [0, 1]," if "image" in name else ""
            raise FloatingPointError(f"the {name} of environment {env} is not finite{bounds} at frame {at:,}")


def _is_stop(batch: int, config: Config) -> bool:
    frames = batch * config.frames_per_batch
    return evaluates_at(config, frames) or keeps_at(config, frames)


def _one_batch(run: DeviceRun, *, learns: bool) -> Chunk:
    """A batch in two programs, as `_chunk` gives it: one of this process, and one of all that train together."""
    collect = jit(run.collect, donate_argnums=0)

    def chunk(state: RunState, length: Int[Array, ""]) -> tuple[RunState, BatchTrace]:
        state, trace = collect(state)
        if learns:
            learned, metrics = run.agent.learn(state.agent)
            state, trace = state._replace(agent=learned), trace._replace(metrics=jax.tree.map(jnp.mean, metrics))
        return state, jax.tree.map(lambda x: x[None], trace)

    return chunk


def _chunk(batch: Callable[[RunState], tuple[RunState, BatchTrace]]) -> Chunk:
    """Up to `LONGEST` batches in one program, which serves every length."""

    def chunk(state: RunState, length: Int[Array, ""]) -> tuple[RunState, BatchTrace]:
        one = jax.eval_shape(batch, state)[1]
        room = jax.tree.map(lambda x: jnp.zeros((LONGEST, *x.shape), x.dtype), one)

        def body(index: Int[Array, ""], carry: Any) -> Any:
            state, traces = carry
            state, trace = batch(state)
            return state, jax.tree.map(lambda all_of, new: all_of.at[index].set(new), traces, trace)

        return jax.lax.fori_loop(0, length, body, (state, room))

    return jit(chunk, donate_argnums=0)
