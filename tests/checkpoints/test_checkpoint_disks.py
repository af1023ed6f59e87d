"""Disks that lose bits, cannot be read, are full or have no links: checkpoints that reuse files stay intact."""

import os
from pathlib import Path

import jax
import pytest
from rings import AGENT, EIGHT_SLOTS, RECORD, Ring, flip_one_bit

from jaxdqn.checkpoints import replay_files
from jaxdqn.checkpoints import replay_reuse as reuse
from jaxdqn.checkpoints.run_state import States
from jaxdqn.storage import checksums


@pytest.fixture(autouse=True)
def files_of_eight_slots(monkeypatch):
    monkeypatch.setattr(replay_files, "CHUNK_BYTES", EIGHT_SLOTS)


def test_files_are_copied_if_the_file_system_has_no_links(tmp_path, monkeypatch):
    def refuse(path, target):
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    ring = Ring(tmp_path)
    for slots in (24, 4, 4, 4):
        ring.save_after(slots)
        ring.check()


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("damage", ["changed", "shorter", "gone"])
def test_damaged_file_is_written_again(tmp_path, damage, keep):
    ring = Ring(tmp_path, keep)
    folder = ring.save_after(24)
    path = folder / "replay" / "00001.npz"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "shorter" else bytes(len(data)))
    for _ in range(2):
        ring.states.save(ring.frames, ring.state, RECORD)
    ring.check()


@pytest.mark.parametrize("keep", [pytest.param(1, marks=pytest.mark.long), 2])
def test_flipped_bit_is_repaired_within_a_few_states(tmp_path, keep):
    """Only the content shows it: size and modification time are unchanged."""
    ring = Ring(tmp_path, keep)
    for slots in (48, 1):
        path = ring.save_after(slots) / "replay" / "00003.npz"
    before = path.stat()
    path.write_bytes(flip_one_bit(path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2 * reuse.CHECKED_EVERY):
        ring.states.save(ring.frames, ring.state, RECORD)
    ring.check()


def test_damaged_file_is_not_copied_into_the_next_state(tmp_path):
    ring = Ring(tmp_path)
    path = ring.save_after(24) / "replay" / "00001.npz"
    before = path.stat()
    path.write_bytes(flip_one_bit(path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    checksums.check_folder(ring.save_after(1))


def test_unreadable_file_does_not_prevent_later_states(tmp_path, monkeypatch):
    ring = Ring(tmp_path)
    bad = ring.save_after(24) / "replay" / "00001.npz"
    real_open = Path.open

    def refuse(path, *args, **options):
        if path == bad:
            raise OSError(5, "Input/output error", str(path))
        return real_open(path, *args, **options)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "open", refuse)
        for _ in range(3):
            checksums.check_folder(ring.save_after(1))


def test_link_that_succeeds_but_raises_is_handled(tmp_path, monkeypatch):
    """If an answer was lost, NFS repeats the request, which then fails because the file exists."""
    real_link = Path.hardlink_to

    def link_and_fail(path, target):
        real_link(path, target)
        raise FileExistsError(17, "File exists", str(path))

    monkeypatch.setattr(Path, "hardlink_to", link_and_fail)
    ring = Ring(tmp_path)
    for slots in (24, 4, 4, 4):
        ring.save_after(slots)
        ring.check()


def test_states_that_share_files_after_a_kill_are_replaced_by_states_that_share_none(tmp_path, monkeypatch):
    ring = Ring(tmp_path)
    for slots in (24, 4):
        ring.save_after(slots)
    with monkeypatch.context() as killed:
        killed.setattr("jaxdqn.checkpoints.run_state.shutil.rmtree", lambda path, **how: None)
        ring.save_after(4)
    assert len(ring.states.all()) == 3
    ring.keep = 3
    ring.states = States(ring.folder, keep=3, with_replay=True)
    ring.state, _ = ring.states.load(ring.states.newest(), AGENT, AGENT.init(jax.random.key(1)))
    for _ in range(3):
        ring.save_after(4)
    ring.check()


def test_failed_save_leaves_the_other_states_intact(tmp_path, monkeypatch):
    ring = Ring(tmp_path)
    for slots in (24, 4):
        ring.save_after(slots)
    with monkeypatch.context() as full:

        def refuse(path):
            raise OSError(28, "No space left on device")

        full.setattr(checksums, "flush_file", refuse)
        with pytest.raises(OSError, match="No space left"):
            ring.save_after(4)
    assert sorted(path.name for path in ring.folder.iterdir()) == [path.name for path in ring.states.all()]
    ring.save_after(4)
    ring.check()
