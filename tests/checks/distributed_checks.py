"""What must hold of several processes, each with two CPU devices, that train together over loopback.

    python3 tests/checks/distributed_checks.py            all of it, in five minutes
    python3 tests/checks/distributed_checks.py short      what the suite runs

The names of some checks run those. `peer.py` is what each process does that does not run the command line.
"""

import sys
import tempfile
import time
from pathlib import Path

import distributed_faults as faults
import distributed_meeting as meeting
from processes import FLAGS, command, free_port, peers, rows, started


def two_processes_learn_the_probes_and_end_with_equal_parameters(folder):
    for ours, theirs in zip(*peers("learn_the_probes", folder), strict=True):
        assert ours[0] == theirs[0]
        assert ours[1] != theirs[1]  # replay
        assert ours[2] == theirs[2] == 4_096


def two_processes_train_pixel_cartpole_and_write_one_folder(folder):
    ours, theirs = peers("train", folder)
    assert ours["learner"] == theirs["learner"]
    assert ours["ring"] != theirs["ring"]
    assert ours["obs"] == theirs["obs"] == [64, 2, 44, 44]
    assert ours["episodes"] == theirs["episodes"] >= 4  # each is told of all
    assert (ours["evaluated"], theirs["evaluated"]) == (True, False)
    assert [path.name for path in folder.iterdir()] == ["run"]
    assert rows(folder) == list(range(16, 257, 16))
    assert len((folder / "run" / "evaluations.csv").read_text().splitlines()) == 3
    assert len(list((folder / "run" / "states").glob("*[0-9]/process-1/manifest.json"))) == 2
    return ours


def a_run_of_two_processes_goes_on_bit_for_bit(folder, train="train", stop="stop_early"):
    whole = peers(train, folder / "whole")
    peers(stop, folder / "part")
    found = peers("go_on", folder / "part")
    for ours, wanted in zip(found, whole, strict=True):
        assert ours == {name: wanted[name] for name in ours}
    assert rows(folder / "part") == rows(folder / "whole")


def and_so_on_the_device(folder):
    a_run_of_two_processes_goes_on_bit_for_bit(folder, "device_loop", "stop_device_loop_early")


def two_processes_share_the_memory_of_their_machine(folder):
    for fits, refused in peers("share_memory", folder):
        assert fits == 64
        assert "capacity 1024 needs" in refused, refused
        assert refused.endswith("the largest that fits is 1000"), refused


def the_device_loop_steps_environments_of_each_process(folder):
    ours, theirs = peers("device_loop", folder)
    assert ours["learner"] == theirs["learner"]
    assert ours["ring"] != theirs["ring"]


def a_run_of_two_takes_more_frames(folder):
    run, often = folder / "run", ["--checkpoint-seconds", 1e-6, "--keep", 100]  # a checkpoint a batch
    for words in (
        ["train", *FLAGS.split(), "--total-frames", 320, "--output", run, *often],
        ["resume", run, "--total-frames", 480],
    ):
        port = free_port()
        with started([command(folder, *words, index=index, port=port) for index in (0, 1)]) as processes:
            said = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
    assert rows(folder) == list(range(16, 481, 16))
    assert sorted(int(state.name) for state in (run / "states").iterdir()) == rows(folder)
    with started([command(folder, "resume", run, index=index, port=port) for index in (0, 1)]) as processes:
        said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    assert all("the run is complete at frame 480" in words for words in said), said


SHORT = (
    meeting.a_coordinator_that_is_not_there_is_said,
    meeting.the_coordinator_listens_where_it_is_told,
    meeting.other_flags_are_refused_by_all,
)
SLOWEST = (
    two_processes_learn_the_probes_and_end_with_equal_parameters,
    and_so_on_the_device,
    a_run_of_two_takes_more_frames,
    faults.a_peer_hangs,
)
LONG = (
    *SHORT,
    two_processes_train_pixel_cartpole_and_write_one_folder,
    two_processes_learn_the_probes_and_end_with_equal_parameters,
    a_run_of_two_processes_goes_on_bit_for_bit,
    and_so_on_the_device,
    faults.a_state_that_one_process_cannot_write_is_none,
    the_device_loop_steps_environments_of_each_process,
    faults.a_fault_of_one_process_is_told_to_all,
    faults.a_peer_that_is_killed_ends_the_others,
    faults.a_run_that_has_lost_a_process_goes_on_alone,
    faults.the_coordinator_is_lost,
    faults.a_peer_hangs,
    faults.sigterm_ends_all_with_a_state,
    faults.and_so_where_both_are_sent_it,
    a_run_of_two_takes_more_frames,
    two_processes_share_the_memory_of_their_machine,
    meeting.a_cluster_tells_each_its_place,
)

if __name__ == "__main__":
    named = [check for check in LONG if check.__name__ in sys.argv[1:]]
    for check in named or (SHORT if "short" in sys.argv else LONG):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            check(Path(name))
        print(f"{check.__name__} {time.monotonic() - began:.1f} s", flush=True)
