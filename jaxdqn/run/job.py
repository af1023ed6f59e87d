"""What `train` and `resume` are asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import optax

from jaxdqn.config import Config
from jaxdqn.envs.pixels import EnvFn
from jaxdqn.losses import Loss
from jaxdqn.run.parts import Found
from jaxdqn.run.peers import Peers
from jaxdqn.run.stop import Stop

Say = Callable[[str], None]


class Custom(NamedTuple):
    """What of a run is the user's own, in place of what the config names.

    Attributes:
        env_fn: Builds an environment.
        network: A Flax module; `load` and `resume` then need it again.
        optimizer: An optax transformation in place of the config's Adam.
        loss: Loss of one TD error.
        eval_env_fn: Builds an environment to evaluate on.
    """

    env_fn: EnvFn | None = None
    network: nn.Module | None = None
    optimizer: optax.GradientTransformation | None = None
    loss: Loss | None = None
    eval_env_fn: EnvFn | None = None

    def played_on(self, config: Config) -> EnvFn | None:
        """Builds the environment that agents are evaluated on; None: the config names it."""
        return self.eval_env_fn or (self.env_fn if config.eval_env is None else None)

    def names(self) -> tuple[str, ...]:
        """What must be given again to go on."""
        return tuple(name for name in self._fields if getattr(self, name) is not None)


class Job(NamedTuple):
    """A run that is to be trained by this process, or by this one and others.

    Attributes:
        config: The run.
        build: Builds one environment to train on.
        build_eval: Builds one to evaluate on.
        custom: What is the user's own.
        found: The state to go on from; None begins anew.
        started: When this process began with it, on the clock of `time.monotonic`.
        stop: As `train` has it.
        say: As `train` has it.
        show: As `train` has it.
        peers: The processes.
    """

    config: Config
    build: EnvFn
    build_eval: EnvFn
    custom: Custom
    found: Found | None
    started: float
    stop: Stop
    say: Say
    show: Say
    peers: Peers

    def say_once(self, note: str) -> None:
        """Say what all processes know."""
        if self.peers.first:
            self.say(note)


def ignore(note: str) -> None:
    """Say nothing."""


def warn(note: str) -> None:
    """Say something that went otherwise than it should have."""
    warnings.warn(note, RuntimeWarning, stacklevel=3)
