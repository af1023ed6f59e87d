"""The whole job as an iterator: train a run, or go on with one."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import flax.linen as nn
import optax

from jaxdqn.checkpoints.shards import SavedState
from jaxdqn.config import Config
from jaxdqn.distributed.processes import ProcessGroup
from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.envs.vector.worker_process import exit_if_imported_by_worker
from jaxdqn.evaluation.trained_agent import read_config
from jaxdqn.losses import Loss
from jaxdqn.returns import NStepReturn
from jaxdqn.signals import Stop
from jaxdqn.training.context import Overrides, Say, ignore, warn
from jaxdqn.training.obs_stats import RolloutAhead
from jaxdqn.training.preparation import make_context
from jaxdqn.training.resume_checks import check_envs, check_overrides, check_saved_state, check_total
from jaxdqn.training.run_dir import check_output, claim_folder, locked, move_to_earlier
from jaxdqn.training.trainer import RunProgress, open_states, run_training
from jaxdqn.training.training_run import TrainingRun


def train(
    config: Config,
    *,
    env_fn: EnvFn | None = None,
    eval_env_fn: EnvFn | None = None,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    returns: NStepReturn | None = None,
    rollout: RolloutAhead | None = None,
    name: str = "run",
    stop: Stop | None = None,
    say: Say = warn,
    show: Say = ignore,
    group: ProcessGroup | None = None,
) -> TrainingRun:
    """Train, and leave a run's folder: the whole job as an iterator.

    It does nothing before it is iterated, trains for the config's whole budget, and closes its environments and
    files however the iteration ends. A loop that is left keeps what was learned (`TrainingRun`).

    Where `jax.distributed` has joined several processes, all of them call this with the same config, and iterate to the
    end. Each steps its share of the environments; the first one alone keeps the folder, which all must see.

    Args:
        config: The run.
        env_fn: The user's own environment in place of `config.env`.
        eval_env_fn: One to evaluate on, say without clipped rewards; None: `config.eval_env`, or that of training.
        network: A Flax module in place of the config's; `load` then needs it again.
        optimizer: An optax transformation in place of the config's Adam.
        loss: Loss of one TD error in place of the config's.
        returns: Reward, discount and length of a window in place of `n_step_return`.
        rollout: The random rollout of this config, which has begun already; None plays it here.
        name: Folder under `runs/` where `config.output` is None.
        stop: Asked between batches and between steps of an evaluation: where it is requested, the state is kept, and
            what the request stands for is raised. None: signals are heard as `TrainingRun` says.
        say: Takes a line where something goes otherwise than it should, such as a checkpoint that cannot be written.
        show: Takes a line every ten seconds of an evaluation: how far it is.
        group: The processes, with the same `stop`; None: those that `jax.distributed` has joined.

    Yields:
        Progress after each batch of `config.frames_per_batch` rows.

    Raises:
        ValueError: If the environment, the output or the sizes cannot be used; nothing has been written then.
        FloatingPointError: If an observation, a reward, a loss or a gradient is not finite.
        ProcessError: If another process has failed.
        LostProcessError: If another process is gone.
    """
    listens, stop = stop is None, stop or Stop()
    group = group or ProcessGroup(stop)
    overrides = Overrides(env_fn, network, optimizer, loss, eval_env_fn, returns)
    steps = _train(config, overrides, rollout, name, stop, (say, show), group)
    return TrainingRun(steps, stop, alone=group.count == 1, listens=listens)


def _train(
    config: Config,
    overrides: Overrides,
    rollout: RolloutAhead | None,
    name: str,
    stop: Stop,
    lines: tuple[Say, Say],
    group: ProcessGroup,
) -> Generator[RunProgress, None, None]:
    exit_if_imported_by_worker()
    started, here = time.monotonic(), Path.cwd()
    with contextlib.ExitStack() as held:
        with group.exchange() as exchange:
            exchange.local = config.to_dict()
            if group.is_first:
                check_output(config)
        with group.exchange():
            _check_same_configs(exchange.gathered)
        if config.has_foreign_symmetries(overrides.env_fn is not None):
            if group.is_first:
                what = f"random_shift {config.random_shift} and mirror {config.mirror}"
                lines[0](f"{what} are for {config.symmetries_of} and left out here: symmetries_of None keeps them")
            config = config.without_symmetries()
        for note in overrides.ignored_fields(config) if group.is_first else ():
            lines[0](note)
        context, setup = make_context(config, overrides, None, started, stop, lines, group, rollout=rollout)

        def claim() -> Path:
            folder = claim_folder(context.config, name, here)
            held.enter_context(locked(folder))
            return folder

        yield from run_training(context, setup, claim, new=True)


def resume(
    run: str | Path,
    *,
    total_frames: int | None = None,
    num_devices: int | None = None,
    env: str | None = None,
    eval_env: str | None = None,
    env_fn: EnvFn | None = None,
    eval_env_fn: EnvFn | None = None,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    returns: NStepReturn | None = None,
    stop: Stop | None = None,
    say: Say = warn,
    show: Say = ignore,
    group: ProcessGroup | None = None,
) -> TrainingRun:
    """Go on with a run that was stopped, however it was: `train`, from the newest state that is whole.

    On the CPU, with environments that can be saved, the run is bit for bit the one that was never stopped. Where there
    is no state yet, it begins anew from `config.json`.

    Args:
        run: Its folder.
        total_frames: A larger budget than the config's; schedules then end there.
        num_devices: Another number of devices of each process than the config's.
        env: Gymnasium id that the run was trained with: it must be named here if it imports a module (`module:Id`).
        eval_env: The same of the environment that evaluations play on.
        env_fn: As the run was trained with.
        eval_env_fn: As the run was trained with.
        network: As the run was trained with.
        optimizer: As the run was trained with.
        loss: As the run was trained with.
        returns: As the run was trained with.
        stop: As `train` has it.
        say: As `train` has it; it is told what is not as it was.
        show: As `train` has it.
        group: As `train` has it; there may be more of them or fewer than before.

    Yields:
        As `train`.

    Raises:
        ValueError: If the folder is no run, the run is complete, no state of it can be used, or the newest is of
            another format or architecture; nothing has been changed then.
        FloatingPointError: As `train`.
    """
    listens, stop = stop is None, stop or Stop()
    group = group or ProcessGroup(stop)
    overrides = Overrides(env_fn, network, optimizer, loss, eval_env_fn, returns)
    changes = {"total_frames": total_frames, "num_devices": num_devices, "env": env, "eval_env": eval_env}
    steps = _resume(Path(run), changes, overrides, stop, (say, show), group)
    return TrainingRun(steps, stop, alone=group.count == 1, listens=listens)


def _resume(
    folder: Path, changes: dict[str, Any], overrides: Overrides, stop: Stop, lines: tuple[Say, Say], group: ProcessGroup
) -> Generator[RunProgress, None, None]:
    exit_if_imported_by_worker()
    started, total_frames = time.monotonic(), changes["total_frames"]
    folder, name = folder.absolute(), str(folder)  # environments may change the current folder
    with contextlib.ExitStack() as held:
        with group.exchange() as exchange:
            config = dataclasses.replace(read_config(Path(name)), output=name)
            if changes["num_devices"] is not None:
                config = dataclasses.replace(config, num_devices=changes["num_devices"])
            check_envs(config, overrides, changes["env"], changes["eval_env"])
            exchange.local = {**config.to_dict(), "new_total_frames": total_frames}
            if group.is_first:
                held.enter_context(locked(folder))
            for note in check_overrides(folder, overrides.named()):
                lines[0](note)
        with group.exchange():
            _check_same_configs(exchange.gathered)
        saved = _newest(folder, config, group)
        with group.exchange():
            if saved is not None:
                notes = [f"{note}: going on from {saved.folder}" for note in saved.notes]
                for note in [*notes, *check_saved_state(saved, config)] if group.is_first else ():
                    lines[0](note)
            config = check_total(folder, config, total_frames, saved)
        context, setup = make_context(config, overrides, saved, started, stop, lines, group)
        if saved is None:
            moved = group.broadcast_from_first(lambda: str(move_to_earlier(folder) or ""))
            aside = f"; what it had left is in {moved}" if moved else ""
            context.say_once(f"{folder} holds no state: the run begins anew from config.json{aside}")
        yield from run_training(context, setup, lambda: folder, new=False)


def _newest(folder: Path, config: Config, group: ProcessGroup) -> SavedState | None:
    """The newest state of a run that is whole, which the first process looks for."""

    def look() -> list[object] | None:
        states = open_states(folder, config, group)
        states.sweep()
        saved = states.newest()
        return None if saved is None else [str(saved.folder), saved.facts, saved.notes, saved.missing_processes]

    there = group.broadcast_from_first(look)
    return None if there is None else SavedState(Path(there[0]), *there[1:])


def _check_same_configs(configs: list[dict[str, Any]]) -> None:
    """Raise `ValueError` where processes that are to train together were started with different flags."""
    for index, config in enumerate(configs):
        for name, value in config.items():
            if value != configs[0][name]:
                raise ValueError(
                    f"process {index} has {name} {value!r} and process 0 {configs[0][name]!r}: start all with the same"
                )
