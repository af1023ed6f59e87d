"""The entry points `train` and `resume`: a complete run as an iterator."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import flax.linen as nn
import optax

from jaxdqn.checkpoints.process_parts import SavedState
from jaxdqn.checkpoints.run_manifest import RunManifest
from jaxdqn.config import Config
from jaxdqn.distributed.process_group import ProcessGroup
from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.envs.vector.worker_process import exit_if_imported_by_worker
from jaxdqn.evaluation.trained_agent import read_config
from jaxdqn.losses import Loss
from jaxdqn.returns import NStepReturn
from jaxdqn.signals import Stop
from jaxdqn.training.context import Overrides, ResumeChanges, RunControl, Say, ignore, warn
from jaxdqn.training.make_context import make_context
from jaxdqn.training.obs_stats import RolloutAhead
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
    """Train a run: logs, evaluations, checkpoints and pictures go to its folder.

    The iterator does nothing before its first step, and trains for the config's whole budget. It closes its
    environments and files at the end, and if the loop is left early, which saves the state (see `TrainingRun`).

    If `jax.distributed` has joined several processes, all of them call this with the same config, and iterate to the
    end. Each steps its share of the environments. Only the first writes to the folder, which all must see.

    Args:
        config: The run.
        env_fn: Builds the user's own environment, in place of `config.env`.
        eval_env_fn: Builds the environment to evaluate on, for example without clipped rewards.
            None: `config.eval_env`, or the environment of training.
        network: A Flax module in place of the config's; `load` then needs it again.
        optimizer: An optax transformation in place of the config's Adam.
        loss: Loss of one TD error in place of the config's.
        returns: Reward, discount and length of a window in place of `n_step_return`.
        rollout: A random rollout of this config that has already started; None plays it here.
        name: Name of the folder under `runs/` if `config.output` is None.
        stop: A request to stop, checked between batches and between steps of an evaluation: the state is saved, and
            KeyboardInterrupt or SystemExit is raised. None: signals are handled as `TrainingRun` describes.
        say: Receives one line if something goes wrong, such as a checkpoint that cannot be written.
        show: Receives one line of progress every ten seconds of an evaluation.
        group: The processes, with the same `stop`; None: those that `jax.distributed` has joined.

    Yields:
        Progress after each batch of `config.frames_per_batch` rows.

    Raises:
        ValueError: If the environment, the output or the sizes cannot be used; nothing has been written then.
        FloatingPointError: If an observation, a reward, a loss or a gradient is not finite.
        ProcessError: If another process has failed.
        LostProcessError: If another process is lost.
    """
    overrides = Overrides(env_fn, network, optimizer, loss, eval_env_fn, returns)
    control = RunControl.make(stop, say, show, group)
    return start_training(config, overrides, control, rollout=rollout, name=name)


def start_training(
    config: Config,
    overrides: Overrides,
    control: RunControl,
    *,
    rollout: RolloutAhead | None = None,
    name: str = "run",
) -> TrainingRun:
    """Do what `train` does, with its arguments as records."""
    return TrainingRun(_train(config, overrides, control, rollout, name), control)


def _train(
    config: Config, overrides: Overrides, control: RunControl, rollout: RolloutAhead | None, name: str
) -> Generator[RunProgress, None, None]:
    exit_if_imported_by_worker()
    started, start_dir, group = time.monotonic(), Path.cwd(), control.group
    with contextlib.ExitStack() as cleanup:
        with group.exchange() as exchange:
            exchange.local = config.to_dict()
            if group.is_first:
                check_output(config)
        with group.exchange():
            _check_same_configs(exchange.gathered)
        if config.has_foreign_symmetries(overrides.env_fn is not None):
            what = f"random_shift {config.random_shift} and mirror {config.mirror}"
            control.say_once(
                f"{what} are for {config.symmetries_of} and not used here: set symmetries_of to None to use them"
            )
            config = config.without_symmetries()
        for note in overrides.ignored_fields(config):
            control.say_once(note)
        context, setup = make_context(config, overrides, control, started, rollout=rollout)

        def claim() -> Path:
            folder = claim_folder(context.config, name, start_dir)
            cleanup.enter_context(locked(folder))
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
    """Resume a run that was stopped or killed, from its newest undamaged state.

    On the CPU, with environments that can be saved, the run is bit for bit the one that was never stopped. If there is
    no state yet, it starts again from scratch with `config.json`.

    Args:
        run: The folder of the run.
        total_frames: A larger budget than the config's; schedules then end there.
        num_devices: Another number of devices of each process than the config's.
        env: Gymnasium id that the run was trained with; required if the id imports a module (`module:Id`).
        eval_env: The same for the environment of evaluations.
        env_fn: The `env_fn` that the run was trained with.
        eval_env_fn: The `eval_env_fn` that the run was trained with.
        network: The network that the run was trained with, if it was the user's own.
        optimizer: The optimizer that the run was trained with, if it was the user's own.
        loss: The loss that the run was trained with, if it was the user's own.
        returns: The function that the run was trained with, if it was the user's own.
        stop: See `train`.
        say: See `train`; it also receives what differs from the run before.
        show: See `train`.
        group: See `train`; their number may differ from the run before.

    Yields:
        Progress after each batch; see `train`.

    Raises:
        ValueError: If the folder is not a run, the run is complete, none of its states can be used, or the newest has
            another format or architecture; nothing has been changed then.
        FloatingPointError: See `train`.
    """
    overrides = Overrides(env_fn, network, optimizer, loss, eval_env_fn, returns)
    changes = ResumeChanges(total_frames, num_devices, env, eval_env)
    return start_resuming(Path(run), changes, overrides, RunControl.make(stop, say, show, group))


def start_resuming(folder: Path, changes: ResumeChanges, overrides: Overrides, control: RunControl) -> TrainingRun:
    """Do what `resume` does, with its arguments as records."""
    return TrainingRun(_resume(folder, changes, overrides, control), control)


def _resume(
    folder: Path, changes: ResumeChanges, overrides: Overrides, control: RunControl
) -> Generator[RunProgress, None, None]:
    exit_if_imported_by_worker()
    started, group = time.monotonic(), control.group
    folder, name = folder.absolute(), str(folder)  # environments may change the current folder
    with contextlib.ExitStack() as cleanup:
        with group.exchange() as exchange:
            config = dataclasses.replace(read_config(Path(name)), output=name)
            if changes.num_devices is not None:
                config = dataclasses.replace(config, num_devices=changes.num_devices)
            check_envs(config, overrides, changes.env, changes.eval_env)
            exchange.local = {**config.to_dict(), "new_total_frames": changes.total_frames}
            if group.is_first:
                cleanup.enter_context(locked(folder))
            for note in check_overrides(folder, overrides.definitions()):
                control.say_once(note)
        with group.exchange():
            _check_same_configs(exchange.gathered)
        saved = _newest(folder, config, group)
        with group.exchange():
            if saved is not None:
                notes = [f"{note}: resuming from {saved.folder}" for note in saved.notes]
                for note in [*notes, *check_saved_state(saved, config)]:
                    control.say_once(note)
            config = check_total(folder, config, changes.total_frames, saved)
        context, setup = make_context(config, overrides, control, started, saved=saved)
        if saved is None:
            moved = group.broadcast_from_first(lambda: str(move_to_earlier(folder) or ""))
            where = f"; its earlier files are in {moved}" if moved else ""
            control.say_once(f"{folder} has no state: the run starts again from scratch with config.json{where}")
        yield from run_training(context, setup, lambda: folder, new=False)


def _newest(folder: Path, config: Config, group: ProcessGroup) -> SavedState | None:
    """Return the newest undamaged state of a run, which the first process looks for; None if there is no state."""

    def find() -> list[object] | None:
        states = open_states(folder, config, group)
        states.delete_partial()
        saved = states.newest()
        if saved is None:
            return None
        return [str(saved.folder), saved.manifest.to_dict(), saved.notes, saved.missing_processes]

    found = group.broadcast_from_first(find)
    if found is None:
        return None
    path = Path(found[0])
    return SavedState(path, RunManifest.from_dict(path, found[1]), *found[2:])


def _check_same_configs(configs: list[dict[str, Any]]) -> None:
    """Raise `ValueError` if processes that train together were started with different flags."""
    for index, config in enumerate(configs):
        for name, value in config.items():
            if value != configs[0][name]:
                raise ValueError(
                    f"process {index} has {name} {value!r} and process 0 {configs[0][name]!r}: start all with the same"
                )
