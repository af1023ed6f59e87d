"""Checkpoints of large rings: unchanged files are reused, no two kept states share a file, and each is complete."""

from types import SimpleNamespace

import jax
import probes
import pytest
from rings import AGENT, EIGHT_SLOTS, Ring, inodes
from stopped_runs import config_in, finish, quiet

import jaxdqn
from jaxdqn.checkpoints import replay_files
from jaxdqn.checkpoints.run_state import States
from jaxdqn.storage import atomic, checksums


@pytest.fixture(autouse=True)
def files_of_eight_slots(monkeypatch):
    monkeypatch.setattr(replay_files, "CHUNK_BYTES", EIGHT_SLOTS)


def test_files_without_new_rows_are_linked_from_the_state_that_is_deleted(tmp_path, monkeypatch):
    ring = Ring(tmp_path)
    entries = []
    monkeypatch.setattr(checksums, "_entry", lambda path, entry=checksums._entry: entries.append(path) or entry(path))
    first = inodes(ring.save_after(48))
    assert len(first) == 6
    assert len({path for path in entries if path.parent.name == "replay"}) == 6
    ring.check()
    entries.clear()
    second = inodes(ring.save_after(4))
    assert len([path for path in entries if path.parent.name == "replay"]) == 1  # only the file of the new rows
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


@pytest.mark.parametrize("keep", [*(pytest.param(keep, marks=pytest.mark.long) for keep in (1, 2)), 3])
def test_every_state_equals_the_ring_at_any_cursor(tmp_path, keep):
    ring = Ring(tmp_path, keep)
    for slots in (3, 5, 0, 8, 16, 31, 1, 64, 2, 7):
        ring.save_after(slots)
        ring.check()


def test_files_are_reused_if_only_one_state_is_kept(tmp_path):
    ring = Ring(tmp_path, keep=1)
    first = inodes(ring.save_after(16))
    second = inodes(ring.save_after(8))
    assert [second[name] for name in first] == list(first.values())
    assert len(ring.states.all()) == 1


def test_after_a_resume_only_checked_files_are_reused(tmp_path):
    ring = Ring(tmp_path)
    for slots in (24, 4):
        ring.save_after(slots)
    ring.states = States(ring.folder, keep=2, with_replay=True)
    ring.state, _ = ring.states.load(ring.states.newest(), AGENT, AGENT.init(jax.random.key(1)))
    for slots in (4, 4):
        ring.save_after(slots)
        ring.check()
    ring.states.forget_written_replay()
    before = {number for folder in ring.states.all() for number in inodes(folder).values()}
    assert not before & set(inodes(ring.save_after(4)).values())


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["host", pytest.param("device", marks=pytest.mark.long)])
def test_states_are_also_written_after_checkpoint_seconds(tmp_path, monkeypatch, loop):
    options = {} if loop == "device" else {"env_fn": probes.Delayed}
    shared = {"loop": loop, "checkpoint_every": 0, "keep": 100}

    def open_states(name, **fields):
        run = tmp_path / name
        finish(jaxdqn.train(config_in(run, **shared, **fields), say=quiet, **options))
        return [int(path.name) for path in States(run / "states", keep=100, with_replay=True).all()]

    monkeypatch.setattr("jaxdqn.loops.device_loop.CHUNK_SECONDS", 0.0)  # a chunk is a batch
    clock = iter(range(10_000))  # advances by a second at each call
    monkeypatch.setattr("jaxdqn.training.state_saver.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    assert open_states("by the clock", checkpoint_seconds=3.0) == [*range(48, 320, 48), 320]
    assert atomic.read_json(tmp_path / "by the clock" / "config.json")["checkpoint_seconds"] == 3.0


@pytest.mark.parametrize(("value", "says"), [(-1.0, "must be 0 or above"), (float("inf"), "must be a finite number")])
def test_invalid_checkpoint_seconds_are_refused(value, says):
    with pytest.raises(ValueError, match=rf"checkpoint_seconds {value} {says}"):
        jaxdqn.Config(checkpoint_seconds=value)


def test_repeated_states_of_one_frame_are_ordered_by_their_suffix(tmp_path):
    ring = Ring(tmp_path)
    names = [ring.save_after(8).name, *(ring.save_after(0).name for _ in range(12))]
    assert names == ["0000000032", *(f"0000000032-{again}" for again in range(1, 13))]
    assert [path.name for path in ring.states.all()] == names[-2:]
    assert ring.states.newest().folder.name == names[-1]
    assert ring.save_after(1).name == "0000000036"
    assert [path.name for path in ring.states.all()] == [names[-1], "0000000036"]
