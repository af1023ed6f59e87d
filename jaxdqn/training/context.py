"""What `train` and `resume` receive, as records: the user's overrides, the run's control, and its context."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import optax

from jaxdqn.agent.overrides import AgentOverrides
from jaxdqn.checkpoints.process_parts import SavedState
from jaxdqn.config import Config
from jaxdqn.distributed.process_group import ProcessGroup
from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.objectives.losses import Loss
from jaxdqn.objectives.objective import Objective
from jaxdqn.returns import NStepReturn
from jaxdqn.signals import Stop

Say = Callable[[str], None]


_REPLACED = {
    "optimizer": ("learning_rate", "learning_rate_end", "weight_decay", "max_gradient_norm", "adam_epsilon"),
    "network": ("network", "value_bias", "layer_norm", "dueling", "activation", "noisy_sigma", "quantiles"),
    "objective": ("loss", "double", "munchausen", "munchausen_alpha", "munchausen_tau", "munchausen_clip"),
    "loss": ("loss",),
}
"""Fields of a config that have no effect if the user passes an override, by the name of the override."""


class Overrides(NamedTuple):
    """What the user passes in place of what the config names.

    Attributes:
        env_fn: Builds an environment.
        network: A Flax module; `load` and `resume` then need it again.
        optimizer: An optax transformation in place of the config's Adam.
        loss: Loss of one TD error.
        eval_env_fn: Builds an environment for evaluations.
        returns: Reward, discount and length of a window.
        objective: What an update minimises.
    """

    env_fn: EnvFn | None = None
    network: nn.Module | None = None
    optimizer: optax.GradientTransformation | None = None
    loss: Loss | None = None
    eval_env_fn: EnvFn | None = None
    returns: NStepReturn | None = None
    objective: Objective | None = None

    def of_agent(self) -> AgentOverrides:
        """Return those that `make_agent` takes."""
        return AgentOverrides(self.network, self.optimizer, self.objective, self.loss, self.returns)

    def evaluation_env_fn(self, config: Config) -> EnvFn | None:
        """Return the function that builds the environment for evaluations; None if the config names it."""
        return self.eval_env_fn or (self.env_fn if config.eval_env is None else None)

    def definitions(self) -> dict[str, str]:
        """Return the overrides that a resume needs again, and where each is defined."""
        given = {name: getattr(self, name) for name in self._fields}
        return {name: _defined_in(value) for name, value in given.items() if value is not None}

    def ignored_fields(self, config: Config) -> list[str]:
        """Return a line for each override that leaves fields set in the config without effect."""
        neutral, notes = Config(), []
        for name, fields in _REPLACED.items():
            if getattr(self, name) is None:
                continue
            ignored = [field for field in fields if getattr(config, field) != getattr(neutral, field)]
            if ignored:
                words = " and ".join(f"{field} {getattr(config, field)!r}" for field in ignored)
                notes.append(f"{words} {'have' if len(ignored) > 1 else 'has'} no effect with your own {name}")
        return notes


NO_OVERRIDES = Overrides()


class RunControl(NamedTuple):
    """How the caller of a run stops it and hears from it, and which processes train together.

    Attributes:
        stop: The request to stop; see `train`.
        say: Receives warnings; see `train`.
        show: Receives progress of evaluations; see `train`.
        group: The processes.
        handle_signals: Whether the run handles signals itself, because its caller passed no `stop`.
    """

    stop: Stop
    say: Say
    show: Say
    group: ProcessGroup
    handle_signals: bool = False

    @classmethod
    def make(cls, stop: Stop | None, say: Say, show: Say, group: ProcessGroup | None) -> RunControl:
        """Return the control of a run, with the defaults of `train` for what is None."""
        own = stop or Stop()
        return cls(own, say, show, group or ProcessGroup(own), handle_signals=stop is None)

    def say_once(self, note: str) -> None:
        """Call `say` on the first process only, with a note that is the same on all processes."""
        if self.group.is_first:
            self.say(note)


class ResumeOptions(NamedTuple):
    """The options of `resume` that concern the config of its run.

    Attributes:
        total_frames: A larger budget; None: the config's.
        num_devices: Another number of devices of each process; None: the config's.
        env: The environment of the config again, to confirm an id that imports a module.
        eval_env: The same for the environment of evaluations.
    """

    total_frames: int | None = None
    num_devices: int | None = None
    env: str | None = None
    eval_env: str | None = None


class RunContext(NamedTuple):
    """A run that this process trains, alone or with others.

    Attributes:
        config: The run.
        build: Builds one environment to train on.
        build_eval: Builds one environment to evaluate on.
        overrides: What the user passes in place of what the config names.
        control: How the caller stops the run and hears from it.
        started: When this process started the run, in seconds of `time.monotonic`.
        saved: The state to resume from; None starts from scratch.
    """

    config: Config
    build: EnvFn
    build_eval: EnvFn
    overrides: Overrides
    control: RunControl
    started: float
    saved: SavedState | None


def _defined_in(value: Any) -> str:
    """Return the dotted name of a function, of the type of a network, or of the function of an optimizer."""
    if isinstance(value, optax.GradientTransformation):
        value = value.update
    if isinstance(value, partial):
        value = value.func
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def ignore(note: str) -> None:
    """Ignore a note."""


def warn(note: str) -> None:
    """Show a note as a `RuntimeWarning`."""
    warnings.warn(note, RuntimeWarning, stacklevel=3)
