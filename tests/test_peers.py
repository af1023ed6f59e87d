"""Several processes: what each keeps of a state, and what is refused; `distributed_checks.py` starts real ones."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdqn
from jaxdqn.config import Config
from jaxdqn.launch import Launch
from jaxdqn.run.manifest import DamagedError, sealed_folder, verified
from jaxdqn.run.peers import Peers, Told
from jaxdqn.run.states import States
from jaxdqn.run.stop import Stop
from jaxdqn.types import Rows

FACTS = {"config": {}, "versions": {}, "index": {}, "log": None}
CONFIG = Config(pixels=False, num_envs=4, frames_per_batch=8, batch_size=4, capacity=64, warmup_frames=8, n_steps=1)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"coordinator": "a:1"}, "--coordinator a:1 needs --distributed: add it"),
        ({"process_id": 1}, "--process-id 1 needs --distributed: add it"),
        ({"distributed": True, "coordinator": "here"}, "'here' must be HOST:PORT, as in 10.0.0.1:12345"),
        ({"distributed": True, "coordinator": "here:http"}, "must be HOST:PORT"),
        ({"distributed": True, "coordinator": "here:70000"}, "must be HOST:PORT"),
        ({"distributed": True, "num_processes": 0}, "--num-processes 0 must be at least 1"),
        ({"distributed": True, "num_processes": 2, "process_id": 2}, "--process-id 2 must be from 0 to"),
        ({"distributed": True, "connect_timeout": 0}, "--connect-timeout 0 must be at least 1"),
    ],
)
def test_flags_that_say_nothing_that_can_be_done_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        Launch(**fields).check()
    Launch(distributed=True, coordinator="[::1]:1", num_processes=2, process_id=1).check()


def test_a_process_alone_is_told_what_it_says():
    peers = Peers()
    assert (peers.index, peers.count, peers.first) == (0, 1, True)
    with peers.together() as told:
        told.mine = [1, 2]
    assert told.all == [[1, 2]]
    assert peers.of_first(lambda: "a name") == "a name"
    with pytest.raises(ZeroDivisionError), peers.together():
        _ = 1 / 0


def test_a_process_among_others_stops_by_what_was_agreed():
    with Stop().listening() as stop:
        stop.keeps(True)
        stop.agree(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked == signal.SIGTERM
        assert not stop.requested
        stop.agree(signal.SIGTERM)
        assert stop.requested
    other = Stop()
    other.agree(signal.SIGINT)  # which another process was sent
    with pytest.raises(KeyboardInterrupt):
        other.check()


def test_a_sealed_folder_stands_for_its_files_in_another(tmp_path):
    with sealed_folder(tmp_path / "a", {}) as outer:
        (outer / "one").write_text("1")
        with sealed_folder(outer / "b", {}) as inner:
            (inner / "two").write_text("2")
    assert set(verified(tmp_path / "a")["files"]) == {"one", "b/manifest.json"}
    (tmp_path / "a" / "b" / "two").write_text("3")
    with pytest.raises(DamagedError, match=r"b/two is damaged: its SHA-256"):
        verified(tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "b")
    with pytest.raises(DamagedError, match=r"b/manifest.json is missing"):
        verified(tmp_path / "a")
    absent: list[str] = []
    verified(tmp_path / "a", absent)
    assert absent == ["b"]


def test_a_witness_speaks_for_a_process_that_was_killed(tmp_path):
    (tmp_path / "states" / "0000003000").mkdir(parents=True)
    code = (
        "import os, signal, sys, pathlib; from jaxdqn.run.witness import Witness\n"
        "with Witness('process 1 of 2') as witness:\n"
        f"    witness.watch(pathlib.Path({str(tmp_path)!r}))\n"
        "    if sys.argv[1:]: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for words, says in ((["die"], f"`jaxdqn resume {tmp_path}` goes on from frame 3,000"), ([], "")):
        root = Path(jaxdqn.__file__).parent.parent
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=root, capture_output=True, text=True, timeout=60, check=False
        )
        assert says in done.stderr
        assert ("process 1 of 2 was ended" in done.stderr) == bool(words)


class Thread(Peers):
    """One of several threads that play processes."""

    def __init__(self, index, count, barrier, said):
        self.index, self.count, self._barrier, self._said = index, count, barrier, said

    @contextlib.contextmanager
    def together(self):
        told = Told()
        yield told
        self._said[self.index] = told.mine
        self._barrier.wait(60)
        told.all = list(self._said)
        self._barrier.wait(60)


def state_of(rows, columns):
    """An agent of some environments, and its state with their rows."""
    num_envs = columns.stop - columns.start
    agent = jaxdqn.make_agent(CONFIG, num_actions=2, obs_shape=(3,), obs_dtype=np.float32, num_envs=num_envs)
    state = agent.init(jax.random.key(0))
    return agent, state if rows is None else agent.observe(state, Rows(*(field[:, columns] for field in rows)))


def some_rows(length, num_envs):
    rng = np.random.default_rng(0)
    shape = (length, num_envs)
    return Rows(
        rng.normal(size=(*shape, 3)).astype(np.float32),
        rng.integers(0, 2, shape).astype(np.int32),
        rng.normal(size=shape).astype(np.float32),
        rng.random(shape) < 0.1,
        rng.random(shape) < 0.1,
        rng.integers(0, 9, shape).astype(np.int32),
    )


def in_threads(count, play):
    """What `play(index, count, peers)` gives in each of some threads."""
    barrier, said, found = threading.Barrier(count), [None] * count, [None] * count

    def run(index):
        found[index] = play(index, Thread(index, count, barrier, said))

    threads = [threading.Thread(target=run, args=[index]) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.slow
def test_rows_that_two_processes_have_written_are_read_by_one_or_two_or_four(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxdqn.run.replay_files.CHUNK_BYTES", 128)  # several files of each
    rows = some_rows(12, 4)

    def width(index, count):
        return slice(index * 4 // count, (index + 1) * 4 // count)

    def save(index, peers):
        states = States(tmp_path, keep=2, with_replay=True, peers=peers)
        _, state = state_of(rows, width(index, 2))
        envs = {"place": np.array([index])}
        return states.save(48, state, FACTS, envs=envs)

    folders = in_threads(2, save)
    assert folders == [tmp_path / "0000000048"] * 2
    assert len(list((folders[0] / "process-1" / "replay").iterdir())) > 2

    def load(index, peers):
        states = States(tmp_path, keep=2, with_replay=True, peers=peers)
        agent, state = state_of(None, width(index, peers.count))
        found = states.newest()
        loaded, _ = states.load(found, agent, state)
        return found, loaded

    for count in (1, 2, 4):
        for index, (found, loaded) in enumerate(in_threads(count, load)):
            assert found.is_of(2)
            for name, field in rows._asdict().items():
                ours = np.asarray(getattr(loaded.replay.rows, name))[:12]
                assert np.array_equal(ours, field[:, width(index, count)]), (name, count, index)
            assert int(loaded.replay.size) == 12
    # What lay on another host's disk is gone with it: there is no replay then, and no wrong one.
    shutil.rmtree(folders[0] / "process-1")
    ((found, loaded),) = in_threads(1, load)
    assert found.absent == ["process-1"]
    assert not found.has_replay
    assert int(loaded.replay.size) == 0


@pytest.mark.slow
def test_two_processes_train_together_and_one_that_is_lost_ends_the_other():
    """`tests/distributed_checks.py` without a word has all checks."""
    path = Path(__file__).parent / "distributed_checks.py"
    done = subprocess.run([sys.executable, path, "short"], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.endswith(" s")]) == 2
