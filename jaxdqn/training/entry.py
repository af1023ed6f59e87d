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

from jaxdqn.checkpoints.shards import Found
from jaxdqn.config import Config
from jaxdqn.distributed.processes import Peers
from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.envs.vector.worker_process import end_if_imported_by_worker
from jaxdqn.evaluation.trained_agent import read_config
from jaxdqn.losses import Loss
from jaxdqn.returns import NStepReturn
from jaxdqn.signals import Stop
from jaxdqn.training.context import Custom, Say, ignore, warn
from jaxdqn.training.obs_stats import RolloutAhead
from jaxdqn.training.preparation import make_job
from jaxdqn.training.resume_checks import check_envs, check_found, check_own, check_total
from jaxdqn.training.run_dir import check_output, claim_folder, locked, set_aside
from jaxdqn.training.trainer import RunProgress, run_course, states_of
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
    peers: Peers | None = None,
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
        peers: The processes, with the same `stop`; None: those that `jax.distributed` has joined.

    Yields:
        Progress after each batch of `config.frames_per_batch` rows.

    Raises:
        ValueError: If the environment, the output or the sizes cannot be used; nothing has been written then.
        FloatingPointError: If an observation, a reward, a loss or a gradient is not finite.
        PeerError: If another process has failed.
        LostPeerError: If another process is gone.
    """
    listens, stop = stop is None, stop or Stop()
    peers = peers or Peers(stop)
    custom = Custom(env_fn, network, optimizer, loss, eval_env_fn, returns)
    steps = _train(config, custom, rollout, name, stop, (say, show), peers)
    return TrainingRun(steps, stop, alone=peers.count == 1, listens=listens)


def _train(
    config: Config,
    custom: Custom,
    rollout: RolloutAhead | None,
    name: str,
    stop: Stop,
    lines: tuple[Say, Say],
    peers: Peers,
) -> Generator[RunProgress, None, None]:
    end_if_imported_by_worker()
    started, here = time.monotonic(), Path.cwd()
    with contextlib.ExitStack() as held:
        with peers.together() as told:
            told.mine = config.to_dict()
            if peers.first:
                check_output(config)
        with peers.together():
            _refuse_others(told.all)
        if config.has_foreign_symmetries(custom.env_fn is not None):
            if peers.first:
                what = f"random_shift {config.random_shift} and mirror {config.mirror}"
                lines[0](f"{what} are for {config.symmetries_of} and left out here: symmetries_of None keeps them")
            config = config.without_symmetries()
        for note in custom.without_effect(config) if peers.first else ():
            lines[0](note)
        job, parts = make_job(config, custom, None, started, stop, lines, peers, rollout=rollout)

        def claim() -> Path:
            folder = claim_folder(job.config, name, here)
            held.enter_context(locked(folder))
            return folder

        yield from run_course(job, parts, claim, new=True)


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
    peers: Peers | None = None,
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
        peers: As `train` has it; there may be more of them or fewer than before.

    Yields:
        As `train`.

    Raises:
        ValueError: If the folder is no run, the run is complete, no state of it can be used, or the newest is of
            another format or architecture; nothing has been changed then.
        FloatingPointError: As `train`.
    """
    listens, stop = stop is None, stop or Stop()
    peers = peers or Peers(stop)
    custom = Custom(env_fn, network, optimizer, loss, eval_env_fn, returns)
    changes = {"total_frames": total_frames, "num_devices": num_devices, "env": env, "eval_env": eval_env}
    steps = _resume(Path(run), changes, custom, stop, (say, show), peers)
    return TrainingRun(steps, stop, alone=peers.count == 1, listens=listens)


def _resume(
    folder: Path, changes: dict[str, Any], custom: Custom, stop: Stop, lines: tuple[Say, Say], peers: Peers
) -> Generator[RunProgress, None, None]:
    end_if_imported_by_worker()
    started, total_frames = time.monotonic(), changes["total_frames"]
    folder, name = folder.absolute(), str(folder)  # environments may change the current folder
    with contextlib.ExitStack() as held:
        with peers.together() as told:
            config = dataclasses.replace(read_config(Path(name)), output=name)
            if changes["num_devices"] is not None:
                config = dataclasses.replace(config, num_devices=changes["num_devices"])
            check_envs(config, custom, changes["env"], changes["eval_env"])
            told.mine = {**config.to_dict(), "new_total_frames": total_frames}
            if peers.first:
                held.enter_context(locked(folder))
            for note in check_own(folder, custom.named()):
                lines[0](note)
        with peers.together():
            _refuse_others(told.all)
        found = _newest(folder, config, peers)
        with peers.together():
            if found is not None:
                notes = [f"{note}: going on from {found.folder}" for note in found.notes]
                for note in [*notes, *check_found(found, config)] if peers.first else ():
                    lines[0](note)
            config = check_total(folder, config, total_frames, found)
        job, parts = make_job(config, custom, found, started, stop, lines, peers)
        if found is None:
            moved = peers.of_first(lambda: str(set_aside(folder) or ""))
            aside = f"; what it had left is in {moved}" if moved else ""
            job.say_once(f"{folder} holds no state: the run begins anew from config.json{aside}")
        yield from run_course(job, parts, lambda: folder, new=False)


def _newest(folder: Path, config: Config, peers: Peers) -> Found | None:
    """The newest state of a run that is whole, which the first process looks for."""

    def look() -> list[object] | None:
        states = states_of(folder, config, peers)
        states.sweep()
        found = states.newest()
        return None if found is None else [str(found.folder), found.facts, found.notes, found.absent]

    there = peers.of_first(look)
    return None if there is None else Found(Path(there[0]), *there[1:])


def _refuse_others(configs: list[dict[str, Any]]) -> None:
    """Raise `ValueError` where processes that are to train together were started with different flags."""
    for index, config in enumerate(configs):
        for name, value in config.items():
            if value != configs[0][name]:
                raise ValueError(
                    f"process {index} has {name} {value!r} and process 0 {configs[0][name]!r}: start all with the same"
                )
