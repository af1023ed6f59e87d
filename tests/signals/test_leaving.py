"""Leaving the loop by `break`, `close`, `stop` or Ctrl-C in a user's script saves the state."""

import os
import signal
import subprocess
import sys

import jax.numpy as jnp
import pytest
from small_runs import equal
from stopped_runs import config_in, finish, newest, quiet, table

import jaxdqn
from jaxdqn.checkpoints.run_state import States


def fail_at_frame_80(config):
    with jaxdqn.train(config) as run:
        for step in run:
            step.progress.frames / (step.progress.frames < 80)


SPARSE = {"checkpoint_every": 0}


def states(run):
    return [int(path.name) for path in States(run / "states", keep=2, with_replay=True).all()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """For each loop, the last step and the rows of an uninterrupted run."""
    found = {}
    for loop in ("host", "device"):
        run = tmp_path_factory.mktemp("whole") / loop
        found[loop] = finish(jaxdqn.train(config_in(run, loop=loop, **SPARSE))), table(run / "metrics.csv")
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "loop"),
    [
        ("break", "host"),
        pytest.param("break", "device", marks=pytest.mark.long),
        pytest.param("with", "host", marks=pytest.mark.long),
        pytest.param("with", "device", marks=pytest.mark.long),
        pytest.param("close", "host", marks=pytest.mark.long),
        pytest.param("close", "device", marks=pytest.mark.long),
        pytest.param("stop", "host", marks=pytest.mark.long),
        ("stop", "device"),
        ("error", "host"),
        pytest.param("error", "device", marks=pytest.mark.long),
    ],
)
def test_a_run_resumed_after_leaving_the_loop_ends_like_an_uninterrupted_one(how, loop, whole, tmp_path):
    config = config_in(tmp_path / "run", loop=loop, **SPARSE)

    def leave():
        if how == "break":  # there is no other reference to the run
            for step in jaxdqn.train(config):
                if step.progress.frames == 80:
                    break
            return
        if how == "error":
            with pytest.raises(ZeroDivisionError):
                fail_at_frame_80(config)
            return
        with jaxdqn.train(config) as run:
            for step in run:
                if step.progress.frames == 80:
                    if how == "with":
                        break
                    getattr(run, how)()
            if how != "with":
                assert step.progress.frames == 80
                assert next(run, None) is None

    leave()
    (kept,) = states(tmp_path / "run")
    # On the device, the batches of the current chunk are trained already: they are part of the state.
    assert kept == 80 if loop == "host" else 80 <= kept <= 320
    assert jaxdqn.load(tmp_path / "run", "last").evaluate(1).episodes == 1
    end = finish(jaxdqn.resume(tmp_path / "run", say=quiet))
    expected, rows = whole[loop]
    if kept < 320:
        assert equal(end.progress.state, expected.progress.state)
    assert table(tmp_path / "run" / "metrics.csv") == rows


@pytest.mark.slow
def test_a_break_saves_nothing_before_close_if_there_is_a_reference_to_the_run(tmp_path):
    steps = jaxdqn.train(config_in(tmp_path / "run", **SPARSE))
    for step in steps:
        if step.progress.frames == 64:
            break
    assert states(tmp_path / "run") == []
    steps.close()
    assert states(tmp_path / "run") == [64]
    steps.close()
    assert next(steps, None) is None
    assert states(tmp_path / "run") == [64]


def test_a_run_that_is_never_iterated_creates_no_folder(tmp_path):
    with jaxdqn.train(config_in(tmp_path / "run", **SPARSE)):
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_state_that_is_on_disk_already_is_not_written_again(tmp_path):
    config = config_in(tmp_path / "run", checkpoint_every=32)
    for step in jaxdqn.train(config):
        if step.progress.frames == 64:
            before = (newest(tmp_path / "run", config).folder / "replay").stat().st_mtime_ns
            break
    assert (newest(tmp_path / "run", config).folder / "replay").stat().st_mtime_ns == before
    assert jaxdqn.load(tmp_path / "run", "last").evaluate(1).episodes == 1
    assert states(tmp_path / "run") == [32, 64]


SCRIPT = """
import signal, sys, time
import jaxdqn
signal.signal(signal.SIGINT, signal.default_int_handler if sys.argv[3] == "default" else signal.SIG_IGN)
config = jaxdqn.Config(total_frames=40_000, batch_size=16, warmup_frames=64, num_envs=4, frames_per_batch=16,
                       updates_per_batch=1, capacity=512, evaluate_every=0, checkpoint_every=0, output=sys.argv[1])
for step in jaxdqn.train(config):
    if step.progress.frames >= 160:
        print(step.progress.frames, flush=True)
        time.sleep(float(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "pause", "ctrl_c"),
    [
        (signal.SIGINT, 60, "default"),
        pytest.param(signal.SIGINT, 0, "default", marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, 60, "ignored in background", marks=pytest.mark.long),
    ],
)
def test_a_signal_in_a_users_script_saves_the_state_within_and_between_batches(number, pause, ctrl_c, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run"), str(pause), ctrl_c],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    shown = int(process.stdout.readline())
    os.kill(process.pid, number)
    rest, said = process.communicate(timeout=60)
    (kept,) = states(tmp_path / "run")
    if pause:
        assert (kept, rest) == (shown, "")
    assert kept >= shown
    if number == signal.SIGINT:
        assert said.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT)


def test_signal_handlers_are_restored_and_a_programs_own_handler_is_not_replaced(tmp_path):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    with jaxdqn.train(config_in(tmp_path / "run", **SPARSE)) as run:
        next(run)
        assert signal.getsignal(signal.SIGINT) is not before[signal.SIGINT]
    assert {number: signal.getsignal(number) for number in before} == before

    def own_handler(*_):
        pass

    signal.signal(signal.SIGINT, own_handler)
    try:
        with jaxdqn.train(config_in(tmp_path / "other", **SPARSE)) as run:
            next(run)
            assert signal.getsignal(signal.SIGINT) is own_handler
    finally:
        signal.signal(signal.SIGINT, before[signal.SIGINT])


def one_step_return(rewards, terminated, last, gamma):
    """Return a window of one step with reward 1."""
    import jax.numpy as jnp

    ended = terminated[0]
    return jnp.float32(1.0), jnp.where(ended, 0.0, gamma), jnp.int32(1)


@pytest.mark.slow
def test_a_users_returns_function_is_used_and_must_be_passed_again(tmp_path):
    seen = []

    def returns(*args):
        seen.append(1)
        return one_step_return(*args)

    config = config_in(tmp_path / "run", checkpoint_every=64, total_frames=128)
    finish(jaxdqn.train(config, returns=returns), stop_after=96)
    assert seen
    with pytest.raises(ValueError, match=r"trained with your own returns, test_leaving\..*returns: pass that"):
        next(jaxdqn.resume(tmp_path / "run"))
    notes = []
    finish(jaxdqn.resume(tmp_path / "run", returns=one_step_return, say=notes.append))
    assert any("returns was test_leaving." in note and "is test_leaving.one_step_return now" in note for note in notes)


def test_fields_without_effect_with_a_users_optimizer_are_reported(tmp_path):
    import optax

    notes = []
    config = config_in(tmp_path / "run", learning_rate=0.25, max_gradient_norm=None, loss="squared", **SPARSE)
    next(jaxdqn.train(config, optimizer=optax.sgd(0.1), loss=jnp.abs, say=notes.append))
    assert "learning_rate 0.25 and max_gradient_norm None have no effect with your own optimizer" in notes
    assert "loss 'squared' has no effect with your own loss" in notes
