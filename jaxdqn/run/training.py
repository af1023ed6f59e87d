"""The whole job as a generator: train a run, or go on with one."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import flax.linen as nn
import optax

from jaxdqn.config import Config
from jaxdqn.envs.pixels import EnvFn, make_env_fn, running_statistics
from jaxdqn.losses import Loss
from jaxdqn.run.assembly import Assembled, assemble, look_at_env, planned_capacity
from jaxdqn.run.course import RunProgress, run_course, states_of
from jaxdqn.run.folders import check_output, claim_folder, locked, set_aside
from jaxdqn.run.job import Custom, Job, Say, ignore, warn
from jaxdqn.run.parts import Found
from jaxdqn.run.peers import Peers
from jaxdqn.run.policy import build_eval_fn, check_same_env, read_config
from jaxdqn.run.resuming import check_found, check_own, check_total
from jaxdqn.run.rollout import RolloutAhead
from jaxdqn.run.stop import Stop


def train(
    config: Config,
    *,
    env_fn: EnvFn | None = None,
    eval_env_fn: EnvFn | None = None,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    rollout: RolloutAhead | None = None,
    name: str = "run",
    stop: Stop | None = None,
    say: Say = warn,
    show: Say = ignore,
    peers: Peers | None = None,
) -> Generator[RunProgress, None, None]:
    """Train, and leave a run's folder: the whole job as a generator.

    It does nothing before it is iterated, trains for the config's whole budget, and closes its environments and
    files however the iteration ends.

    Where `jax.distributed` has joined several processes, all of them call this with the same config, and iterate to the
    end. Each steps its share of the environments; the first one alone keeps the folder, which all must see.

    Args:
        config: The run.
        env_fn: The user's own environment in place of `config.env`.
        eval_env_fn: One to evaluate on, say without clipped rewards; None: `config.eval_env`, or that of training.
        network: A Flax module in place of the config's; `load` then needs it again.
        optimizer: An optax transformation in place of the config's Adam.
        loss: Loss of one TD error in place of the config's.
        rollout: The random rollout of this config, which has begun already; None plays it here.
        name: Folder under `runs/` where `config.output` is None.
        stop: Asked between batches and between steps of an evaluation: where it is requested, the state is kept, and
            what the request stands for is raised.
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
    started, stop = time.monotonic(), stop or Stop()
    peers = peers or Peers(stop)
    custom = Custom(env_fn, network, optimizer, loss, eval_env_fn)
    with contextlib.ExitStack() as held:
        with peers.together() as told:
            told.mine = config.to_dict()
            if peers.first:
                check_output(config)
        with peers.together():
            _refuse_others(told.all)
        if config.has_foreign_symmetries(env_fn is not None):
            if peers.first:
                what = f"random_shift {config.random_shift} and mirror {config.mirror}"
                say(f"{what} are for {config.symmetries_of} and left out here: symmetries_of None keeps them")
            config = config.without_symmetries()
        job, parts = _job(config, custom, None, started, stop, (say, show), peers, rollout=rollout)

        def claim() -> Path:
            folder = claim_folder(job.config, name)
            held.enter_context(locked(folder))
            return folder

        yield from run_course(job, parts, claim, new=True)


def resume(
    run: str | Path,
    *,
    total_frames: int | None = None,
    num_devices: int | None = None,
    env_fn: EnvFn | None = None,
    eval_env_fn: EnvFn | None = None,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    stop: Stop | None = None,
    say: Say = warn,
    show: Say = ignore,
    peers: Peers | None = None,
) -> Generator[RunProgress, None, None]:
    """Go on with a run that was stopped, however it was: `train`, from the newest state that is whole.

    On the CPU, with environments that can be saved, the run is bit for bit the one that was never stopped. Where there
    is no state yet, it begins anew from `config.json`.

    Args:
        run: Its folder.
        total_frames: A larger budget than the config's; schedules then end there.
        num_devices: Another number of devices of each process than the config's.
        env_fn: As the run was trained with.
        eval_env_fn: As the run was trained with.
        network: As the run was trained with.
        optimizer: As the run was trained with.
        loss: As the run was trained with.
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
    started, stop = time.monotonic(), stop or Stop()
    peers = peers or Peers(stop)
    folder = Path(run)
    custom = Custom(env_fn, network, optimizer, loss, eval_env_fn)
    with contextlib.ExitStack() as held:
        with peers.together() as told:
            config = dataclasses.replace(read_config(folder), output=str(folder))
            if num_devices is not None:
                config = dataclasses.replace(config, num_devices=num_devices)
            told.mine = {**config.to_dict(), "new_total_frames": total_frames}
            if peers.first:
                held.enter_context(locked(folder))
            check_own(folder, custom.names())
        with peers.together():
            _refuse_others(told.all)
        found = _newest(folder, config, peers)
        with peers.together():
            if found is not None:
                notes = [f"{note}: going on from {found.folder}" for note in found.notes]
                for note in [*notes, *check_found(found, config)] if peers.first else ():
                    say(note)
            config = check_total(folder, config, total_frames, found)
        job, parts = _job(config, custom, found, started, stop, (say, show), peers)
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


def _job(
    config: Config,
    custom: Custom,
    found: Found | None,
    started: float,
    stop: Stop,
    lines: tuple[Say, Say],
    peers: Peers,
    *,
    rollout: RolloutAhead | None = None,
) -> tuple[Job, Assembled]:
    """A run and its agent, whose first state is the first process's."""
    with contextlib.ExitStack() as held:
        with peers.together() as told:
            build = make_env_fn(
                config.env,
                pixels=config.pixels,
                frame_size=config.frame_size,
                colour=config.colour,
                env_fn=custom.env_fn,
            )
            env = held.enter_context(contextlib.closing(build()))
            spec = look_at_env(env, config.frame_stack)
            wrapper = running_statistics(env)
            if wrapper is not None and peers.first:
                lines[0](f"{wrapper} has statistics of its own in each copy of env: evaluations see other numbers")
            if config.eval_env is not None and custom.eval_env_fn is not None:
                raise ValueError(f"eval_env {config.eval_env!r} and eval_env_fn are both given: give one")
            build_eval = build_eval_fn(config, custom.played_on(config))
            if config.eval_env is not None or custom.eval_env_fn is not None:
                with contextlib.closing(build_eval()) as other:
                    check_same_env(other, spec, "evaluate on an environment with those of training")
            told.mine = planned_capacity(config, spec)
        config = dataclasses.replace(config, capacity=min(told.all))
        with peers.together():
            parts = assemble(
                config,
                env,
                spec,
                network=custom.network,
                optimizer=custom.optimizer,
                loss=custom.loss,
                rollout=rollout,
                own_env=custom.env_fn is not None,
                fresh=found is None and peers.first,
            )
    if found is None:
        learner, actor = parts.state.learner, parts.state.actor
        learner, params = peers.arrays_of_first((learner, actor.params))
        parts = parts._replace(state=parts.state._replace(learner=learner, actor=actor._replace(params=params)))
    needed = {"env_fn": custom.played_on(config), "network": custom.network}  # to load the agent
    own = tuple(name for name, given in needed.items() if given is not None)
    parts = parts._replace(spec=parts.spec._replace(custom=own))
    return Job(config, build, build_eval, custom, found, started, stop, *lines, peers), parts
