"""The entry points `train` and `resume`: a complete run as an iterator."""

from __future__ import annotations

from pathlib import Path

import flax.linen as nn
import optax

from jaxdqn.config import Config
from jaxdqn.distributed.process_group import ProcessGroup
from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.objectives.losses import Loss
from jaxdqn.objectives.objective import Objective
from jaxdqn.returns import NStepReturn
from jaxdqn.signals import Stop
from jaxdqn.training.context import Overrides, ResumeOptions, RunControl, Say, ignore, warn
from jaxdqn.training.obs_stats import RolloutAhead
from jaxdqn.training.run_steps import resume_steps, train_steps
from jaxdqn.training.training_run import TrainingRun


def train(
    config: Config,
    *,
    env_fn: EnvFn | None = None,
    eval_env_fn: EnvFn | None = None,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    objective: Objective | None = None,
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
        objective: What an update minimises, in place of the config's.
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
    overrides = Overrides(env_fn, network, optimizer, loss, eval_env_fn, returns, objective)
    control = RunControl.make(stop, say, show, group)
    return TrainingRun(train_steps(config, overrides, control, rollout=rollout, name=name), control)


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
    objective: Objective | None = None,
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
        objective: The objective that the run was trained with, if it was the user's own.
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
    overrides = Overrides(env_fn, network, optimizer, loss, eval_env_fn, returns, objective)
    options = ResumeOptions(total_frames=total_frames, num_devices=num_devices, env=env, eval_env=eval_env)
    control = RunControl.make(stop, say, show, group)
    return TrainingRun(resume_steps(Path(run), options, overrides, control), control)
