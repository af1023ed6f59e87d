"""Helpers that run commands, register environments, kill runs and set the free memory."""

import contextlib
from types import SimpleNamespace

import gymnasium as gym
import pytest

from jaxdqn.cli.main import main
from jaxdqn.storage import free_memory


def set_free_memory(monkeypatch, num_bytes):
    """Set the free bytes of the machine's memory; that of an accelerator is not counted."""
    memory = SimpleNamespace(available=int(num_bytes), total=2**40)
    monkeypatch.setattr(free_memory.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(free_memory, "_own_free_bytes", lambda device: None)


def command(*words):
    """Run a command and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code


def interrupting_import_of(module):
    """Return a script that runs the command line and receives Ctrl-C while a module is imported."""
    return f"""
import importlib.abc, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
        if name == "jaxdqn.training.run_steps":
            print("still importing")

sys.meta_path.insert(0, Interrupting())
from jaxdqn.cli.main import main
main()
"""


def kill(steps):
    """End a run after a batch as if its process were killed: nothing more is saved."""
    with contextlib.suppress(MemoryError):
        steps._steps.throw(MemoryError())


@contextlib.contextmanager
def registered(env_id, make):
    gym.register(env_id, entry_point=make)
    try:
        yield
    finally:
        del gym.registry[env_id]
