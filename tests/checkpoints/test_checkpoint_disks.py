"""Disks that lose bits, cannot be read, are full or have no links: checkpoints that take files over are whole."""

import os
from pathlib import Path

import jax
import pytest
from rings import AGENT, EIGHT_SLOTS, FACTS, Ring, flipped

from jaxdqn.checkpoints import replay as replay_files
from jaxdqn.checkpoints import reuse
from jaxdqn.checkpoints.run_state import States
from jaxdqn.storage import manifest


@pytest.fixture(autouse=True)
def files_of_eight_slots(monkeypatch):
    monkeypatch.setattr(replay_files, "CHUNK_BYTES", EIGHT_SLOTS)


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


@pytest.mark.parametrize("keep", [1, 2])
def test_a_bit_that_a_disk_has_lost_is_written_anew_within_a_few_states(tmp_path, keep):
    """Nothing but the content tells: the size and the time of the last change are as they were."""
    ring = Ring(tmp_path, keep)
    for slots in (48, 1):
        path = ring.save_after(slots) / "replay" / "00003.npz"
    before = path.stat()
    path.write_bytes(flipped(path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2 * reuse.CHECKED_EVERY):
        ring.states.save(ring.frames, ring.state, FACTS)
    ring.check()


def test_a_copy_of_what_a_disk_has_lost_is_none(tmp_path):
    ring = Ring(tmp_path)
    path = ring.save_after(24) / "replay" / "00001.npz"
    before = path.stat()
    path.write_bytes(flipped(path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    manifest.verified(ring.save_after(1))


def test_a_file_that_cannot_be_read_stops_no_later_state(tmp_path, monkeypatch):
    ring = Ring(tmp_path)
    bad = ring.save_after(24) / "replay" / "00001.npz"
    opened = Path.open

    def refuse(path, *how, **options):
        if path == bad:
            raise OSError(5, "Input/output error", str(path))
        return opened(path, *how, **options)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "open", refuse)
        for _ in range(3):
            manifest.verified(ring.save_after(1))


def test_a_link_that_is_made_and_reported_as_an_error_is_no_obstacle(tmp_path, monkeypatch):
    """NFS sends a request again whose answer was lost, and is told then that the file exists."""
    link = Path.hardlink_to

    def link_and_fail(path, target):
        link(path, target)
        raise FileExistsError(17, "File exists", str(path))

    monkeypatch.setattr(Path, "hardlink_to", link_and_fail)
    ring = Ring(tmp_path)
    for slots in (24, 4, 4, 4):
        ring.save_after(slots)
        ring.check()


def test_states_that_share_files_after_a_kill_share_none_a_few_later(tmp_path, monkeypatch):
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
