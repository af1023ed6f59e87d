"""Checks of several processes, each with two CPU devices, that train together over loopback.

    python3 tests/checks/distributed_checks.py            all checks, in five minutes
    python3 tests/checks/distributed_checks.py short      the quickest checks

Pass names of checks to run only those. Processes that do not run the command line run `peer.py`.
"""

import sys
import tempfile
import time
from pathlib import Path

import distributed_faults as faults
import distributed_meeting as meeting
from processes import FLAGS, command, free_port, rows, run_role, started


def two_processes_learn_the_probes_and_end_with_equal_parameters(folder):
    for first, second in zip(*run_role("learn_the_probes", folder), strict=True):
        assert first[0] == second[0]
        assert first[1] != second[1]  # replay
        assert first[2] == second[2] == 4_096


def two_processes_train_pixel_cartpole_and_write_one_folder(folder):
    first, second = run_role("train", folder)
    assert first["learner"] == second["learner"]
    assert first["ring"] != second["ring"]
    assert first["obs"] == second["obs"] == [64, 2, 44, 44]
    assert first["episodes"] == second["episodes"] >= 4  # each process counts the episodes of all
    assert (first["evaluated"], second["evaluated"]) == (True, False)
    assert [path.name for path in folder.iterdir()] == ["run"]
    assert rows(folder) == list(range(16, 257, 16))
    assert len((folder / "run" / "evaluations.csv").read_text().splitlines()) == 3
    assert len(list((folder / "run" / "states").glob("*[0-9]/process-1/manifest.json"))) == 2
    return first


def two_processes_resume_bit_for_bit(folder, train="train", stop="stop_early"):
    whole = run_role(train, folder / "whole")
    run_role(stop, folder / "part")
    resumed = run_role("resume_run", folder / "part")
    for found, wanted in zip(resumed, whole, strict=True):
        assert found == {name: wanted[name] for name in found}
    assert rows(folder / "part") == rows(folder / "whole")


def two_processes_with_the_device_loop_resume_bit_for_bit(folder):
    two_processes_resume_bit_for_bit(folder, "device_loop", "stop_device_loop_early")


def two_processes_share_the_memory_of_their_machine(folder):
    for fits, refused in run_role("share_memory", folder):
        assert fits == 64
        assert "capacity 1024 needs" in refused, refused
        assert refused.endswith("the largest that fits is 1000"), refused


def device_loop_steps_different_environments_in_each_process(folder):
    first, second = run_role("device_loop", folder)
    assert first["learner"] == second["learner"]
    assert first["ring"] != second["ring"]


def two_processes_resume_with_more_total_frames(folder):
    run, frequent = folder / "run", ["--checkpoint-seconds", 1e-6, "--keep", 100]  # a state after every batch
    for words in (
        ["train", *FLAGS.split(), "--total-frames", 320, "--output", run, *frequent],
        ["resume", run, "--total-frames", 480],
    ):
        port = free_port()
        with started([command(folder, *words, index=index, port=port) for index in (0, 1)]) as processes:
            outputs = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
    assert rows(folder) == list(range(16, 481, 16))
    assert sorted(int(state.name) for state in (run / "states").iterdir()) == rows(folder)
    with started([command(folder, "resume", run, index=index, port=port) for index in (0, 1)]) as processes:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], errors
    assert all("the run is complete at frame 480" in text for text in errors), errors


SHORT = (
    meeting.missing_coordinator_is_reported,
    meeting.different_flags_are_refused_by_all,
)
MEDIUM = (
    two_processes_resume_bit_for_bit,
    faults.error_of_one_process_is_raised_on_all,
    faults.killed_process_ends_the_others,
    faults.sigterm_to_one_process_ends_all_with_a_state,
)
"""With `SHORT`, what CI runs."""
ALL = (
    *SHORT,
    meeting.coordinator_listens_on_the_given_address,
    two_processes_train_pixel_cartpole_and_write_one_folder,
    two_processes_learn_the_probes_and_end_with_equal_parameters,
    two_processes_resume_bit_for_bit,
    two_processes_with_the_device_loop_resume_bit_for_bit,
    faults.state_that_one_process_cannot_write_is_not_kept,
    device_loop_steps_different_environments_in_each_process,
    faults.error_of_one_process_is_raised_on_all,
    faults.killed_process_ends_the_others,
    faults.run_that_lost_a_process_resumes_on_one,
    faults.killed_coordinator_ends_the_others,
    faults.hanging_process_ends_the_others,
    faults.sigterm_to_one_process_ends_all_with_a_state,
    faults.sigterm_to_both_processes_ends_them_with_a_state,
    two_processes_resume_with_more_total_frames,
    two_processes_share_the_memory_of_their_machine,
    meeting.processes_find_each_other_through_the_cluster,
)

if __name__ == "__main__":
    named = [check for check in ALL if check.__name__ in sys.argv[1:]]
    for check in named or (SHORT if "short" in sys.argv else ALL):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            check(Path(name))
        print(f"{check.__name__} {time.monotonic() - began:.1f} s", flush=True)
