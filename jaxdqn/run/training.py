"""The whole job as a generator: train a run, or go on with one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import flax.linen as nn
import optax

from jaxdqn.config import Config
from jaxdqn.envs.pixels import EnvFn, make_env_fn
from jaxdqn.losses import Loss
from jaxdqn.run.assembly import Assembled, assemble
from jaxdqn.run.course import Custom, RunProgress, Say, run_course, states_of, warn
from jaxdqn.run.folders import check_output, claim_folder, locked, set_aside
from jaxdqn.run.policy import read_config
from jaxdqn.run.resuming import check_found, check_own, check_total
from jaxdqn.run.rollout import RolloutAhead
from jaxdqn.run.stop import Stop


def train(
    config: Config,
    *,
    env_fn: EnvFn | None = None,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    rollout: RolloutAhead | None = None,
    name: str = "run",
    stop: Stop | None = None,
    say: Say = warn,
) -> Generator[RunProgress, None, None]:
    """Train, and leave a run's folder: the whole job as a generator.

    It does nothing before it is iterated, trains for the config's whole budget, and closes its environments and
    files however the iteration ends.

    Args:
        config: The run.
        env_fn: The user's own environment in place of `config.env`.
        network: A Flax module in place of the config's; `load` then needs it again.
        optimizer: An optax transformation in place of the config's Adam.
        loss: Loss of one TD error in place of the config's.
        rollout: The random rollout of this config, which has begun already; None plays it here.
        name: Folder under `runs/` where `config.output` is None.
        stop: Asked between batches and between steps of an evaluation: where it is requested, the state is kept, and
            what the request stands for is raised.
        say: Takes a line where something goes otherwise than it should, such as a checkpoint that cannot be written.

    Yields:
        Progress after each batch of `config.frames_per_batch` rows.

    Raises:
        ValueError: If the environment, the output or the sizes cannot be used; nothing has been written then.
        FloatingPointError: If an observation, a reward, a loss or a gradient is not finite.
    """
    started = time.monotonic()
    check_output(config)
    custom = Custom(env_fn, network, optimizer, loss)
    build = make_env_fn(config.env, pixels=config.pixels, frame_size=config.frame_size, env_fn=env_fn)
    parts = _assemble(config, build, custom, rollout=rollout)
    with contextlib.ExitStack() as held:

        def claim() -> Path:
            folder = claim_folder(config, name)
            held.enter_context(locked(folder))
            return folder

        yield from run_course(config, build, parts, custom, claim, None, started, stop or Stop(), say, new=True)


def resume(
    run: str | Path,
    *,
    total_frames: int | None = None,
    env_fn: EnvFn | None = None,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    stop: Stop | None = None,
    say: Say = warn,
) -> Generator[RunProgress, None, None]:
    """Go on with a run that was stopped, however it was: `train`, from the newest state that is whole.

    On the CPU, with environments that can be saved, the run is bit for bit the one that was never stopped. Where there
    is no state yet, it begins anew from `config.json`.

    Args:
        run: Its folder.
        total_frames: A larger budget than the config's; schedules then end there.
        env_fn: As the run was trained with.
        network: As the run was trained with.
        optimizer: As the run was trained with.
        loss: As the run was trained with.
        stop: As `train` has it.
        say: As `train` has it; it is told what is not as it was.

    Yields:
        As `train`.

    Raises:
        ValueError: If the folder is no run, the run is complete, no state of it can be used, or the newest is of
            another format or architecture; nothing has been changed then.
        FloatingPointError: As `train`.
    """
    started = time.monotonic()
    folder = Path(run)
    config = dataclasses.replace(read_config(folder), output=str(folder))
    custom = Custom(env_fn, network, optimizer, loss)
    with locked(folder):
        check_own(folder, custom.names())
        states = states_of(folder, config)
        states.sweep()
        found = states.newest()
        if found is not None:
            notes = [f"{note}: going on from {found.folder}" for note in found.notes]
            for note in [*notes, *check_found(found, config)]:
                say(note)
        config = check_total(folder, config, total_frames, found)
        build = make_env_fn(config.env, pixels=config.pixels, frame_size=config.frame_size, env_fn=env_fn)
        parts = _assemble(config, build, custom, fresh=found is None)
        if found is None:
            aside = set_aside(folder)
            moved = f"; what it had left is in {aside}" if aside else ""
            say(f"{folder} holds no state: the run begins anew from config.json{moved}")
        claimed = functools.partial(Path, folder)
        yield from run_course(config, build, parts, custom, claimed, found, started, stop or Stop(), say, new=False)


def _assemble(config: Config, build: EnvFn, custom: Custom, **how: Any) -> Assembled:
    network, optimizer, loss = custom.network, custom.optimizer, custom.loss
    own = custom.env_fn is not None
    parts = assemble(config, build, network=network, optimizer=optimizer, loss=loss, own_env=own, **how)
    needed = tuple(name for name in custom.names() if name in ("env_fn", "network"))  # to load the agent
    return parts._replace(spec=parts.spec._replace(custom=needed))
