"""Several processes: what they exchange, and what each writes of a state."""

import contextlib
import dataclasses
import os
import shutil
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdqn
from jaxdqn.checkpoints.process_parts import flatten, read_rest, unflatten, write_part
from jaxdqn.checkpoints.run_manifest import RunRecord
from jaxdqn.checkpoints.run_state import States
from jaxdqn.config import Config
from jaxdqn.distributed.process_group import Exchange, ProcessError, ProcessGroup
from jaxdqn.envs.seeds import process_seed, spawn_seeds
from jaxdqn.loops.progress import learning_start_after
from jaxdqn.signals import Stop
from jaxdqn.storage.checksums import DamagedError, check_folder, sealed_folder
from jaxdqn.types import Rows

RECORD = RunRecord(config={}, versions={}, index={}, log=None, evaluation_due=False)
CONFIG = Config(pixels=False, num_envs=4, frames_per_batch=8, batch_size=4, capacity=64, warmup_frames=8, n_steps=1)


def test_single_process_gathers_its_own_value():
    group = ProcessGroup()
    assert (group.index, group.count, group.is_first) == (0, 1, True)
    with group.exchange() as exchange:
        exchange.local = [1, 2]
    assert exchange.gathered == [[1, 2]]
    assert group.broadcast_from_first(lambda: "a name") == "a name"
    with pytest.raises(ZeroDivisionError), group.exchange():
        _ = 1 / 0


def test_process_in_a_group_stops_only_when_all_agreed():
    with Stop().listening() as stop:
        stop.allow_graceful(True)
        stop.agree(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM
        assert not stop.requested
        stop.agree(signal.SIGTERM)
        assert stop.requested
    other = Stop()
    other.agree(signal.SIGINT)  # another process received it
    with pytest.raises(KeyboardInterrupt):
        other.raise_if_signalled()


def test_processes_have_different_seeds_and_the_first_has_that_of_a_single_process():
    seeds = [process_seed(5, index) for index in range(8)]
    assert seeds[0] == 5
    assert len(set(seeds)) == 8
    assert not {seed for index in seeds for seed in spawn_seeds(index, 16)} & {5}
    assert len({seed for index in seeds for seed in spawn_seeds(index, 16)}) == 8 * 16


def test_learning_starts_at_the_same_frame_with_a_share_of_the_environments():
    """Two processes with half of the environments each hold 16 rows each after 32 frames."""
    agent, state = state_of(some_rows(8, 4), slice(0, 2))
    state = state._replace(actor=state.actor._replace(frame=np.int32(32)))
    assert learning_start_after(state, agent, 4) == agent.learning_start
    assert learning_start_after(state._replace(replay=agent.replay.init()), agent, 4) == 32 + agent.learning_start


def test_deferred_error_is_raised_at_the_next_exchange():
    with pytest.raises(OSError, match="full"), ProcessGroup.alone().defer_error():  # a single process raises at once
        raise OSError("full")
    group = ProcessGroup.alone()
    group.count, group._gather = 2, lambda record: [record, {**record, "failed": None}]
    with group.defer_error():
        raise OSError("full")
    with pytest.raises(OSError, match="full") as found, group.exchange():
        pass
    assert group.is_known_to_all(found.value)
    assert not group.is_known_to_all(OSError("full"))
    group._gather = lambda record: [record, {**record, "failed": ["FileNotFoundError", "gone"]}]
    with pytest.raises(ProcessError, match="process 1 of 2: gone"), group.exchange():
        pass
    group._gather = lambda record: [record, {**record, "exchanges": 9}]
    with pytest.raises(ProcessError, match="process 1 is at exchange 9 and process 0 at exchange 3"), group.exchange():
        pass


def test_manifest_lists_a_nested_folders_manifest_instead_of_its_files(tmp_path):
    with sealed_folder(tmp_path / "a", {}) as outer:
        (outer / "one").write_text("1")
        with sealed_folder(outer / "b", {}) as inner:
            (inner / "two").write_text("2")
    assert set(check_folder(tmp_path / "a")["files"]) == {"one", "b/manifest.json"}
    (tmp_path / "a" / "b" / "two").write_text("3")
    with pytest.raises(DamagedError, match=r"b/two is damaged: its SHA-256"):
        check_folder(tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "b")
    with pytest.raises(DamagedError, match=r"b/manifest.json is missing"):
        check_folder(tmp_path / "a")
    missing_processes: list[str] = []
    check_folder(tmp_path / "a", missing_processes)
    assert missing_processes == ["b"]


def test_arrays_of_every_dtype_are_restored_exactly(tmp_path):
    tree = {
        "place": jax.numpy.arange(6, dtype=jax.numpy.bfloat16).reshape(2, 3),
        "key": jax.random.key(7),
        "n": np.int32(3),
    }
    arrays, names = flatten(tree)
    write_part(tmp_path, ring=None, rows=0, rest=arrays, envs=None, read_obs=None, earlier=None)
    (found,) = unflatten(read_rest(tmp_path, arrays), tree)
    assert flatten(found)[1] == names
    for ours, theirs in zip(flatten(found)[0].values(), arrays.values(), strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


class Thread(ProcessGroup):
    """The process group of one of several threads that stand in for processes."""

    def __init__(self, index, count, barrier, values):
        self.index, self.count, self._barrier, self._values = index, count, barrier, values

    @contextlib.contextmanager
    def exchange(self):
        exchange = Exchange()
        yield exchange
        self._values[self.index] = exchange.local
        self._barrier.wait(60)
        exchange.gathered = list(self._values)
        self._barrier.wait(60)


def state_of(rows, columns):
    """Return an agent for some of the environments, and its state with their rows."""
    num_envs = columns.stop - columns.start
    config = dataclasses.replace(CONFIG, capacity=16 * num_envs, prioritized=True)
    agent = jaxdqn.make_agent(config, num_actions=2, obs_shape=(3,), obs_dtype=np.float32, num_envs=num_envs)
    state = agent.init(jax.random.key(0))
    return agent, state if rows is None else agent.observe(state, jax.tree.map(lambda field: field[:, columns], rows))


def weights_of(ring):
    """Return the weights of the priorities of rows [L, N]."""
    shape = ring.rows.action.shape
    return np.asarray(ring.priorities.weights).reshape(-1)[: shape[0] * shape[1]].reshape(shape)


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


def in_threads(count, function):
    """Return what `function(index, group)` returns in each of `count` threads."""
    barrier, values, found = threading.Barrier(count), [None] * count, [None] * count

    def run(index):
        found[index] = function(index, Thread(index, count, barrier, values))

    threads = [threading.Thread(target=run, args=[index]) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.slow
@pytest.mark.several
def test_rows_written_by_two_processes_are_read_by_one_two_or_four(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxdqn.checkpoints.replay_files.CHUNK_BYTES", 128)  # several files per process
    rows = some_rows(12, 4)

    def width(index, count):
        return slice(index * 4 // count, (index + 1) * 4 // count)

    saved = {}

    def save(index, group):
        states = States(tmp_path, keep=2, with_replay=True, group=group)
        agent, state = state_of(rows, width(index, 2))
        priority = jnp.asarray(np.random.default_rng(index).exponential(size=24), jnp.float32)
        ring = agent.replay.update_priorities(state.replay, jnp.arange(24), priority)
        state, saved[index] = state._replace(replay=ring), weights_of(ring)
        envs = {"place": np.array([index])}
        return states.save(48, state, RECORD, envs=envs)

    folders = in_threads(2, save)
    assert folders == [tmp_path / "0000000048"] * 2
    assert len(list((folders[0] / "process-1" / "replay").iterdir())) > 2

    def load(index, group):
        states = States(tmp_path, keep=2, with_replay=True, group=group)
        agent, state = state_of(None, width(index, group.count))
        found = states.newest()
        loaded, _ = states.load(found, agent, state)
        return found, loaded

    for count in (1, 2, 4):
        for index, (found, loaded) in enumerate(in_threads(count, load)):
            assert found.is_complete_for(2)
            for name, field in zip(rows._fields[:-1], rows, strict=False):
                ours = np.asarray(getattr(loaded.replay.rows, name))[:12]
                assert np.array_equal(ours, field[:, width(index, count)]), (name, count, index)
            assert int(loaded.replay.size) == 12
            priorities = np.concatenate([saved[0], saved[1]], axis=1)[:, width(index, count)]
            assert np.array_equal(weights_of(loaded.replay), priorities)
            assert int(loaded.replay.priorities.num_rows[0]) == (priorities > 0).sum() > 0
            assert np.isclose(loaded.replay.priorities.sums.sum(), priorities.sum())
    # If the part on another host's disk is lost, no replay is loaded.
    shutil.rmtree(folders[0] / "process-1")
    ((found, loaded),) = in_threads(1, load)
    assert found.missing_processes == ["process-1"]
    assert not found.has_replay
    assert int(loaded.replay.size) == 0
