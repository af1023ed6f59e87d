"""Checkpoints of large rings: what has not changed is taken over, no two that are kept share a file, each is whole."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import probes
import pytest
from small_runs import equal
from test_resume import VECTORS, config_in, finish, quiet

import jaxdqn
from jaxdqn.run import files, manifest, replay_files
from jaxdqn.run.states import States

FACTS = {"config": {}, "versions": {}, "index": {}, "log": None}
AGENT = jaxdqn.make_agent(
    dataclasses.replace(VECTORS, capacity=256, total_frames=10_000), num_actions=2, obs_shape=(4,), obs_dtype=np.float32
)
NUM_ENVS = VECTORS.num_envs


@pytest.fixture(autouse=True)
def files_of_eight_slots(monkeypatch):
    monkeypatch.setattr(replay_files, "CHUNK_BYTES", 8 * NUM_ENVS * (16 + 14))


class Ring:
    """A ring that is filled and saved again and again."""

    def __init__(self, folder, keep=2):
        self.folder, self.keep = folder / "states", keep
        self.states = States(self.folder, keep=keep, with_replay=True)
        self.state = AGENT.init(jax.random.key(0))
        self.frames = 0
        self.rng = np.random.default_rng(0)

    def save_after(self, slots):
        shape = (slots, NUM_ENVS)
        rows = jaxdqn.Rows(
            obs=self.rng.normal(size=(*shape, 4)).astype(np.float32),
            action=self.rng.integers(0, 2, shape, np.int32),
            reward=self.rng.normal(size=shape).astype(np.float32),
            terminated=np.zeros(shape, bool),
            last=np.zeros(shape, bool),
            episode_step=np.ones(shape, np.int32),
        )
        if slots:
            self.state = AGENT.observe(self.state, rows)
        self.frames += slots * NUM_ENVS
        return self.states.save(self.frames, self.state, FACTS)

    def check(self):
        """All states that are kept are whole, and the newest is the ring."""
        kept = self.states.all()
        assert len(kept) <= self.keep
        for folder in kept:
            manifest.verified(folder)
        numbers = [number for folder in kept for number in inodes(folder).values()]
        assert len(set(numbers)) == len(numbers)
        states = States(self.folder, keep=self.keep, with_replay=True)
        loaded, _ = states.load(states.newest(), AGENT, AGENT.init(jax.random.key(1)))
        assert equal(loaded, self.state)


def inodes(folder):
    return {path.name: path.stat().st_ino for path in sorted((folder / "replay").iterdir())}


def test_files_without_new_rows_are_linked_from_the_state_that_is_deleted(tmp_path, monkeypatch):
    ring = Ring(tmp_path)
    entries = []
    monkeypatch.setattr(manifest, "_entry", lambda path, entry=manifest._entry: entries.append(path) or entry(path))
    first = inodes(ring.save_after(48))
    assert len(first) == 6
    assert len({path for path in entries if path.parent.name == "replay"}) == 6
    ring.check()
    entries.clear()
    second = inodes(ring.save_after(4))
    assert len([path for path in entries if path.parent.name == "replay"]) == 1  # of the new rows' file
    assert not set(first.values()) & set(second.values())
    ring.check()
    entries.clear()
    third = inodes(ring.save_after(8))  # slots 52 to 59: the seventh and the eighth file
    assert [third[name] for name in first] == list(first.values())
    assert sorted(path.name for path in entries if path.parent.name == "replay") == ["00006.npz", "00007.npz"]
    ring.check()
    fourth = inodes(ring.save_after(10))  # and slots 60 to 63 and 0 to 5: the first is overwritten
    assert [name for name in second if fourth[name] == second[name]] == [f"{index:05d}.npz" for index in range(1, 6)]
    ring.check()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_every_state_is_the_ring_wherever_its_rows_begin(tmp_path, keep):
    ring = Ring(tmp_path, keep)
    for slots in (3, 5, 0, 8, 16, 31, 1, 64, 2, 7):
        ring.save_after(slots)
        ring.check()


def test_with_one_state_files_are_taken_over_from_it(tmp_path):
    ring = Ring(tmp_path, keep=1)
    first = inodes(ring.save_after(16))
    second = inodes(ring.save_after(8))
    assert [second[name] for name in first] == list(first.values())
    assert len(ring.states.all()) == 1


def test_where_there_are_no_links_files_are_copied(tmp_path, monkeypatch):
    def refuse(path, target):
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    ring = Ring(tmp_path)
    for slots in (24, 4, 4, 4):
        ring.save_after(slots)
        ring.check()


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("damage", ["changed", "shorter", "gone"])
def test_a_file_that_is_no_longer_what_was_written_is_written_again(tmp_path, damage, keep):
    ring = Ring(tmp_path, keep)
    folder = ring.save_after(24)
    path = folder / "replay" / "00001.npz"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "shorter" else bytes(len(data)))
    for _ in range(2):
        ring.states.save(ring.frames, ring.state, FACTS)
    ring.check()


def test_a_file_that_changes_while_it_is_copied_is_written_again(tmp_path, monkeypatch):
    ring = Ring(tmp_path)
    ring.save_after(24)
    monkeypatch.setattr(replay_files, "_copy", lambda old, new: new.write_bytes(b"other") and "other")
    ring.save_after(1)
    ring.check()


def test_a_save_that_fails_leaves_the_files_of_the_others(tmp_path, monkeypatch):
    ring = Ring(tmp_path)
    for slots in (24, 4):
        ring.save_after(slots)
    with monkeypatch.context() as full:

        def refuse(path):
            raise OSError(28, "No space left on device")

        full.setattr(manifest, "flush_file", refuse)
        with pytest.raises(OSError, match="No space left"):
            ring.save_after(4)
    assert sorted(path.name for path in ring.folder.iterdir()) == [path.name for path in ring.states.all()]
    ring.save_after(4)
    ring.check()


def test_after_a_resume_only_what_was_checked_is_taken_over(tmp_path):
    ring = Ring(tmp_path)
    for slots in (24, 4):
        ring.save_after(slots)
    ring.states = States(ring.folder, keep=2, with_replay=True)
    ring.state, _ = ring.states.load(ring.states.newest(), AGENT, AGENT.init(jax.random.key(1)))
    for slots in (4, 4):
        ring.save_after(slots)
        ring.check()
    ring.states.forget()
    before = {number for folder in ring.states.all() for number in inodes(folder).values()}
    assert not before & set(inodes(ring.save_after(4)).values())


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["host", "device"])
def test_states_are_written_by_the_clock_as_well(tmp_path, monkeypatch, loop):
    how = {} if loop == "device" else {"env_fn": probes.Delayed}
    often = {"loop": loop, "total_frames": 128, "checkpoint_every": 0, "keep": 100}

    def states_of(name, **fields):
        run = tmp_path / name
        finish(jaxdqn.train(config_in(run, **often, **fields), say=quiet, **how))
        return [int(path.name) for path in States(run / "states", keep=100, with_replay=True).all()]

    assert states_of("by-frames", checkpoint_seconds=0.0) == [128]
    assert states_of("seldom", checkpoint_seconds=1e6) == [128]
    monkeypatch.setattr("jaxdqn.run.device_loop.SECONDS", 0.0)  # a chunk is a batch
    assert states_of("often", checkpoint_seconds=1e-6) == list(range(16, 129, 16))
    clock = iter(range(10_000))  # which goes on by a second at each look
    monkeypatch.setattr("jaxdqn.run.keeper.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    written = states_of("at times", checkpoint_seconds=3.0)
    assert written == [48, 96, 128]
    assert files.read_json(tmp_path / "at times" / "config.json")["checkpoint_seconds"] == 3.0


@pytest.mark.parametrize(("value", "says"), [(-1.0, "must be 0 or above"), (float("inf"), "must be a finite number")])
def test_seconds_that_are_none_are_refused(value, says):
    with pytest.raises(ValueError, match=rf"checkpoint_seconds {value} {says}"):
        jaxdqn.Config(checkpoint_seconds=value)
