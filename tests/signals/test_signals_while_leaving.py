"""Signals while a loop is being left, with several runs in a process, and after runs that end in another thread."""

import contextlib
import dataclasses
import signal
import threading
import time

import probes
import pytest
from small_runs import CONFIG

import jaxdqn
from jaxdqn.checkpoints.run_state import States

RUN = dataclasses.replace(CONFIG, loop="host", total_frames=100, evaluate_every=0, checkpoint_every=0, capacity=100)

pytestmark = pytest.mark.slow


def run_in(folder):
    return jaxdqn.train(dataclasses.replace(RUN, output=str(folder)), env_fn=probes.Delayed, say=lambda note: None)


def states_in(folder):
    return [int(path.name) for path in States(folder / "states", keep=9, with_replay=True).all()]


@pytest.fixture
def interrupted_save(monkeypatch):
    """Send Ctrl-C while the state is saved."""
    save = States.save

    def interrupt(*args, **how):
        signal.raise_signal(signal.SIGINT)
        return save(*args, **how)

    monkeypatch.setattr(States, "save", interrupt)


@pytest.mark.parametrize("how", ["with", "close", "stop", "break"])
def test_ctrl_c_while_the_state_is_saved_takes_effect_after_it(how, tmp_path, interrupted_save):
    def leave():
        if how == "with":
            with run_in(tmp_path / "run") as run:
                next(run)
        elif how == "break":
            for _ in run_in(tmp_path / "run"):
                break
            time.sleep(5)  # Python ignores errors in `__del__`: the signal is sent again a moment later
        else:
            run = run_in(tmp_path / "run")
            next(run)
            if how == "stop":
                run.stop()
                list(run)
            run.close()

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert states_in(tmp_path / "run") == [10]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Interrupting(probes.Delayed):
    """Sends Ctrl-C in the middle of a batch."""

    steps = 0

    def step(self, action):
        Interrupting.steps += 1
        if Interrupting.steps == 12:
            signal.raise_signal(signal.SIGINT)
        return super().step(action)


def test_ctrl_c_saves_both_of_two_interleaved_runs(tmp_path):
    Interrupting.steps = 0
    other = jaxdqn.train(dataclasses.replace(RUN, output=str(tmp_path / "b")), env_fn=Interrupting)

    def train_both():
        with contextlib.closing(run_in(tmp_path / "a")) as one, contextlib.closing(other):
            for _ in one:
                next(other)

    with pytest.raises(KeyboardInterrupt):
        train_both()
    assert states_in(tmp_path / "a") == states_in(tmp_path / "b") == [20]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_that_ends_does_not_remove_the_signal_handlers_of_another(tmp_path):
    one, other = run_in(tmp_path / "a"), run_in(tmp_path / "b")
    next(one)
    next(other)
    one.close()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert states_in(tmp_path / "b") == [10]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signal_handlers_are_restored_after_a_run_ends_in_another_thread(tmp_path):
    run, faults = run_in(tmp_path / "run"), []
    next(run)

    def close():
        try:
            run.close()
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    assert not faults
    assert states_in(tmp_path / "run") == [10]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
