"""Environments that cannot be made, by id or in a worker process: one line that says what to do."""

import importlib.util
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import gymnasium as gym
import psutil
import pytest
from probes import TINY, OneStep, TerminatingChain
from processes import python_path
from running import command, registered

import jaxdqn
from jaxdqn.envs.gymnasium.building import make_env_fn
from jaxdqn.envs.vector.episodes import make_vector_env
from jaxdqn.envs.vector.workers import WorkerError
from jaxdqn.training.obs_stats import RolloutAhead

TRAINER = os.getpid()

UNKNOWN = "gymnasium does not import it by itself: "
IDS = [  # the id, whether the package is installed, and the message
    ("ALE/Pong-v5", False, "ale_py is not installed: python3 -m pip install ale-py"),
    ("PongNoFrameskip-v4", True, UNKNOWN + "use 'ale_py:PongNoFrameskip-v4'"),
    (
        "MinAtar/Seaquest-v1",
        False,
        "python3 -m pip install minatar, and use 'MODULE:MinAtar/Seaquest-v1', where MODULE",
    ),
    ("MinAtar/Seaquest-v1", True, "with `import minatar.gym; minatar.gym.register_envs()`"),
    ("LunarLander-v3", False, "Box2D is not installed: python3 -m pip install box2d"),
    ("nowhere_at_all:Mine-v0", False, "module 'nowhere_at_all' is not found: install it, or add its folder"),
    ("Mine-v0", False, "If a module registers it, add its name: 'module:Mine-v0'"),
    ("a:b:c", False, "the id has more than one colon"),
    ("broken:Mine-v0", False, "SyntaxError"),
    ("leaving:Mine-v0", False, "SystemExit"),
]


@pytest.mark.parametrize(("env", "installed", "says"), IDS, ids=lambda value: str(value)[:24])
def test_an_id_that_cannot_be_made_says_what_to_do(env, installed, says, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("def f(:")
    (tmp_path / "leaving.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name, spec in gym.registry.items() if "ale_py" in str(spec.entry_point)]:
        monkeypatch.delitem(gym.registry, name)  # of an import in another test
    for module in ("ale_py", "Box2D"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: importlib.util.spec_from_loader(name, None, origin="x") if installed else None,
    )
    with pytest.raises(ValueError, match=f"^env '{env}' cannot be made: ") as raised:
        make_env_fn(env, pixels=None)()
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def fails_elsewhere(fail):
    """Return a function that builds an environment in this process and fails in others."""

    def build():
        if os.getpid() != TRAINER:
            fail()
        return OneStep()

    return build


def missing():
    raise FileNotFoundError(2, "No such file", "level.bin")


def holds(lock):
    return lambda: lock and OneStep()


class StrangeError(Exception):
    """An error that can be pickled but not unpickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


class Raising(TerminatingChain):
    def step(self, action):
        raise StrangeError("odd", "joint")


BUILDERS = {
    "raises": (fails_elsewhere(missing), r"cannot be built in a worker process: FileNotFoundError: .*level\.bin"),
    "exits": (fails_elsewhere(sys.exit), "cannot be built in a worker process: SystemExit"),
    "crashes": (
        fails_elsewhere(lambda: os._exit(3)),
        "crashed or was killed before the environment was built, with exit code 3",
    ),
    "holds a lock": (
        holds(threading.Lock()),
        "env_fn cannot be sent to a worker process: cannot pickle '_thread.lock' object",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", BUILDERS)
def test_an_environment_that_no_worker_can_build_raises_one_error_and_leaves_no_process(how, capfd):
    build, says = BUILDERS[how]
    with pytest.raises(WorkerError, match=f"{says}.* set collector to sync") as raised:
        make_vector_env(build, 2, workers=True)
    assert isinstance(raised.value, ValueError)  # a fault of the arguments, not of the run
    assert multiprocessing.active_children() == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_an_error_that_cannot_be_unpickled_is_reported_as_text(capfd):
    envs = make_vector_env(Raising, 2, workers=True)
    envs.reset(seed=0)
    with pytest.raises(WorkerError, match=r"environment \d \(action 0\) raised StrangeError: odd joint"):
        envs.step([0, 0])
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_an_id_registered_only_in_the_trainer_is_refused_in_one_line(capfd, tmp_path):
    with registered("Mine-v0", TerminatingChain):
        code = command("train", "--env", "Mine-v0", *TINY, "--collector", "async", "--output", tmp_path / "run")
    out, err = capfd.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "add its name: 'module:Mine-v0'" in err
    assert 'outside of `if __name__ == "__main__":`, or set collector to sync' in err
    assert not (tmp_path / "run").exists()
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_an_environment_without_render_mode_trains_on_vectors_and_is_refused_with_pixels(capsys, tmp_path):
    with registered("Plain-v0", TerminatingChain):
        assert command("train", "--env", "Plain-v0", "--pixels", *TINY[1:], "--output", tmp_path / "drawn") == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "'Plain-v0' cannot be rendered: its constructor takes no render_mode" in said
        assert command("train", "--env", "Plain-v0", *TINY, "--output", tmp_path / "run") == 0
    assert "WARN" not in "".join(capsys.readouterr())


@pytest.mark.slow
@pytest.mark.filterwarnings("always:env Stuck-v0")
def test_an_environment_that_fails_when_it_is_closed_does_not_fail_the_run(capsys, tmp_path):
    def close(self):
        raise RuntimeError("stuck")

    with registered("Stuck-v0", type("Stuck", (TerminatingChain,), {"close": close})):
        assert command("train", "--env", "Stuck-v0", *TINY, "--output", tmp_path / "run") == 0
    out, err = capsys.readouterr()
    assert "warning: env Stuck-v0 raised an error when it was closed: RuntimeError: stuck" in " ".join(out.split())
    assert err == ""


TRAINING = """
import jaxdqn
from probes import TerminatingChain
open("begun", "a").write("once ")
config = jaxdqn.Config(collector="async", num_envs=2, total_frames=256, warmup_frames=64, output="run")
for step in jaxdqn.train(config, env_fn=TerminatingChain):
    pass
"""
COMMAND = """
from jaxdqn.cli.main import main
main("train --env CartPole-v1 --num-envs 2 --collector async --output run".split())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", [pytest.param(TRAINING, marks=pytest.mark.long), COMMAND], ids=["train", "the command line"]
)
def test_a_script_without_a_main_guard_is_refused_with_advice(script, tmp_path):
    (tmp_path / "script.py").write_text(script)
    path = python_path()
    how = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": path}, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "script.py"], **how)
    err = process.communicate(timeout=120)[1]
    advice = 'put the code of the script under `if __name__ == "__main__":`, or set collector to sync'
    assert advice in err.splitlines()[-1]
    if script is TRAINING:
        assert (process.returncode, err.count("Traceback")) == (1, 1), err
    else:
        assert (process.returncode, err.count("\n")) == (2, 1), err
    assert not (tmp_path / "run").exists()
    assert not [other for other in psutil.process_iter(["cwd"]) if other.info["cwd"] == str(tmp_path)]


def test_training_is_refused_in_a_process_that_is_importing_the_script(monkeypatch, tmp_path):
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    config = jaxdqn.Config(output=str(tmp_path / "run"))
    for begin in (
        RolloutAhead,
        lambda config: next(jaxdqn.train(config)),
        lambda _: make_vector_env(OneStep, 2, workers=True),
    ):
        with pytest.raises(RuntimeError, match=r'put the code of the script under `if __name__ == "__main__":`'):
            begin(config)


@pytest.mark.slow
def test_workers_of_a_killed_trainer_end_without_a_traceback(tmp_path):
    script = """
import os, signal
from jaxdqn.envs.vector.episodes import make_vector_env
from probes import OneStep
if __name__ == "__main__":
    envs = make_vector_env(OneStep, 2, workers=True)
    print(*(process.pid for process in envs.processes), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / "script.py").write_text(script)
    env = {**os.environ, "PYTHONPATH": python_path()}
    words = [sys.executable, "script.py"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -9
    deadline = time.monotonic() + 10
    while any(map(psutil.pid_exists, map(int, done.stdout.split()))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "Traceback" not in done.stderr
