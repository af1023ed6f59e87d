"""What `train` and `resume` are asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import optax

from jaxdqn.checkpoints.shards import SavedState
from jaxdqn.config import Config
from jaxdqn.distributed.processes import ProcessGroup
from jaxdqn.envs.gymnasium.wrappers import EnvFn
from jaxdqn.losses import Loss
from jaxdqn.returns import NStepReturn
from jaxdqn.signals import Stop

Say = Callable[[str], None]


_REPLACED = {
    "optimizer": ("learning_rate", "learning_rate_end", "weight_decay", "max_gradient_norm"),
    "network": ("network", "value_bias"),
    "loss": ("loss",),
}
"""What of a config says nothing where something of the user's own takes its place."""


class Overrides(NamedTuple):
    """What of a run is the user's own, in place of what the config names.

    Attributes:
        env_fn: Builds an environment.
        network: A Flax module; `load` and `resume` then need it again.
        optimizer: An optax transformation in place of the config's Adam.
        loss: Loss of one TD error.
        eval_env_fn: Builds an environment to evaluate on.
        returns: Reward, discount and length of a window.
    """

    env_fn: EnvFn | None = None
    network: nn.Module | None = None
    optimizer: optax.GradientTransformation | None = None
    loss: Loss | None = None
    eval_env_fn: EnvFn | None = None
    returns: NStepReturn | None = None

    def evaluation_env_fn(self, config: Config) -> EnvFn | None:
        """Builds the environment that agents are evaluated on; None: the config names it."""
        return self.eval_env_fn or (self.env_fn if config.eval_env is None else None)

    def named(self) -> dict[str, str]:
        """What must be given again to go on, and where it is defined."""
        given = {name: getattr(self, name) for name in self._fields}
        return {name: _defined_in(value) for name, value in given.items() if value is not None}

    def ignored_fields(self, config: Config) -> list[str]:
        """Which of a config's fields are set, and say nothing beside what is the user's own."""
        neutral, notes = Config(), []
        for name, fields in _REPLACED.items():
            if getattr(self, name) is None:
                continue
            saved = [field for field in fields if getattr(config, field) != getattr(neutral, field)]
            if saved:
                words = " and ".join(f"{field} {getattr(config, field)!r}" for field in saved)
                notes.append(f"{words} {'have' if len(saved) > 1 else 'has'} no effect beside {name} of your own")
        return notes


class RunContext(NamedTuple):
    """A run that is to be trained by this process, or by this one and others.

    Attributes:
        config: The run.
        build: Builds one environment to train on.
        build_eval: Builds one to evaluate on.
        overrides: What is the user's own.
        saved: The state to go on from; None begins anew.
        started: When this process began with it, on the clock of `time.monotonic`.
        stop: As `train` has it.
        say: As `train` has it.
        show: As `train` has it.
        group: The processes.
    """

    config: Config
    build: EnvFn
    build_eval: EnvFn
    overrides: Overrides
    saved: SavedState | None
    started: float
    stop: Stop
    say: Say
    show: Say
    group: ProcessGroup

    def say_once(self, note: str) -> None:
        """Say what all processes know."""
        if self.group.is_first:
            self.say(note)


def _defined_in(value: Any) -> str:
    """A name to find a function by, or a network or an optimizer by its type or its functions."""
    if isinstance(value, optax.GradientTransformation):
        value = value.update
    if isinstance(value, partial):
        value = value.func
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def ignore(note: str) -> None:
    """Say nothing."""


def warn(note: str) -> None:
    """Say something that went otherwise than it should have."""
    warnings.warn(note, RuntimeWarning, stacklevel=3)
