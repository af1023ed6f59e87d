"""The steps of `train` and `resume`: check what was asked for, set the run up, and train it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from jaxdqn.checkpoints.process_parts import SavedState
from jaxdqn.checkpoints.run_manifest import RunManifest
from jaxdqn.config import Config
from jaxdqn.distributed.process_group import ProcessGroup
from jaxdqn.envs.vector.worker_process import exit_if_imported_by_worker
from jaxdqn.evaluation.loading import read_config
from jaxdqn.training.context import Overrides, ResumeOptions, RunControl
from jaxdqn.training.obs_stats import RolloutAhead
from jaxdqn.training.resume_checks import check_envs, check_overrides, check_saved_state, check_total
from jaxdqn.training.run_dir import check_output, claim_folder, locked, move_to_earlier
from jaxdqn.training.setup import set_up_run
from jaxdqn.training.trainer import RunProgress, open_states, run_training


def train_steps(
    config: Config,
    overrides: Overrides,
    control: RunControl,
    *,
    rollout: RolloutAhead | None = None,
    name: str = "run",
) -> Generator[RunProgress, None, None]:
    """Train a run from scratch; `train` has the arguments, what is yielded, and the errors."""
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
        context, setup = set_up_run(config, overrides, control, started, rollout=rollout)

        def claim() -> Path:
            folder = claim_folder(context.config, name, start_dir)
            cleanup.enter_context(locked(folder))
            return folder

        yield from run_training(context, setup, claim, new=True)


def resume_steps(
    folder: Path, options: ResumeOptions, overrides: Overrides, control: RunControl
) -> Generator[RunProgress, None, None]:
    """Resume the run in a folder; `resume` has the arguments, what is yielded, and the errors."""
    exit_if_imported_by_worker()
    started, group = time.monotonic(), control.group
    folder, name = folder.absolute(), str(folder)  # environments may change the current folder
    with contextlib.ExitStack() as cleanup:
        with group.exchange() as exchange:
            config = dataclasses.replace(read_config(Path(name)), output=name)
            if options.num_devices is not None:
                config = dataclasses.replace(config, num_devices=options.num_devices)
            check_envs(config, overrides, options.env, options.eval_env)
            exchange.local = {**config.to_dict(), "new_total_frames": options.total_frames}
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
            config = check_total(folder, config, options.total_frames, saved)
        context, setup = set_up_run(config, overrides, control, started, saved=saved)
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
