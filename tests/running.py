"""Commands run to their exit code, on environments that are known for a while."""

import contextlib

import gymnasium as gym
import pytest

from jaxdqn.cli import main


def command(*words):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code


def kill(steps):
    """End a run in the middle of what follows a batch, as a killed process does: nothing is kept any more."""
    with contextlib.suppress(MemoryError):
        steps._steps.throw(MemoryError())


@contextlib.contextmanager
def registered(env_id, make):
    gym.register(env_id, entry_point=make)
    try:
        yield
    finally:
        del gym.registry[env_id]
