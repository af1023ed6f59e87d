"""The records that `train`, `resume` and the command line fill: each argument reaches the field of its name."""

import dataclasses
import inspect

import flax.linen as nn
import optax
import pytest

import jaxdqn
from jaxdqn.agent.overrides import AgentOverrides
from jaxdqn.cli.flags import Resume
from jaxdqn.objectives.losses import huber_loss
from jaxdqn.objectives.q_learning import q_learning
from jaxdqn.returns import n_step_return
from jaxdqn.training.context import Overrides, ResumeOptions, RunControl

CONFIG = jaxdqn.Config(pixels=False)
GIVEN = {
    "env_fn": lambda: None,
    "eval_env_fn": lambda: None,
    "network": nn.Dense(2),
    "optimizer": optax.sgd(0.1),
    "loss": huber_loss,
    "objective": q_learning(),
    "returns": n_step_return,
}


@pytest.fixture
def steps_called(monkeypatch):
    """What `train` and `resume` pass on, in place of training."""
    called = []

    def steps(*args, **kwargs):
        called.append((args, kwargs))
        yield from ()

    monkeypatch.setattr("jaxdqn.training.entry.train_steps", steps)
    monkeypatch.setattr("jaxdqn.training.entry.resume_steps", steps)
    return called


def test_each_override_of_train_and_resume_reaches_its_field(steps_called):
    assert set(GIVEN) == set(Overrides._fields)
    list(jaxdqn.train(CONFIG, **GIVEN))
    list(jaxdqn.resume("run", total_frames=1, num_devices=2, env="a", eval_env="b", **GIVEN))
    for args, _ in steps_called:
        overrides = next(arg for arg in args if isinstance(arg, Overrides))
        assert overrides._asdict() == GIVEN
        assert overrides.of_agent()._asdict() == {name: GIVEN[name] for name in AgentOverrides._fields}
    assert steps_called[1][0][1] == ResumeOptions(total_frames=1, num_devices=2, env="a", eval_env="b")


def test_say_and_show_are_not_mixed_up(steps_called):
    said, shown = [], []
    list(jaxdqn.train(CONFIG, say=said.append, show=shown.append))
    control = next(arg for arg in steps_called[0][0] if isinstance(arg, RunControl))
    control.say_once("a")
    control.show("b")
    assert (said, shown) == (["a"], ["b"])
    assert control.handle_signals  # no `stop` was passed


def test_every_option_of_a_resume_is_a_flag_and_an_argument():
    flags = {field.name for field in dataclasses.fields(Resume)}
    assert set(ResumeOptions._fields) <= flags
    assert set(ResumeOptions._fields) <= set(inspect.signature(jaxdqn.resume).parameters)


def test_every_override_of_an_agent_is_an_argument_of_each_function_that_makes_one():
    for make in (jaxdqn.make_agent, jaxdqn.make_parallel_agent, jaxdqn.make_device_run, jaxdqn.train, jaxdqn.resume):
        assert set(AgentOverrides._fields) <= set(inspect.signature(make).parameters), make
