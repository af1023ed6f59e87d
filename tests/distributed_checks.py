"""What must hold of several processes, each with two CPU devices, that train together over loopback.

    python3 tests/distributed_checks.py            all of it, in five minutes
    python3 tests/distributed_checks.py short      what the suite runs

The names of some checks run those. `peer.py` is what each process does that does not run the command line.
"""

import signal
import sys
import tempfile
import time
from pathlib import Path

from processes import JAXDQN, command, free_port, listening, peers, rows, started, wait_for

FLAGS = "--no-pixels --num-devices 2 --num-envs 4 --frames-per-batch 16 --batch-size 8 --updates-per-batch 2"
FLAGS += " --warmup-frames 64 --evaluation-episodes 1 --checkpoint-every 320 --evaluate-every 640"
PIXELS = FLAGS.replace("--no-pixels", "--frame-size 44 --frame-stack 2 --normalisation-frames 20").replace("320", "96")


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


def a_state_that_one_process_cannot_write_is_none(folder):
    ours, theirs = peers("fail_to_save_once", folder)
    assert ours["learner"] == theirs["learner"]
    assert ours["said"] == ["no checkpoint of frame 64: process 1 of 2: no room; there is none yet"]
    assert theirs["said"] == []  # what all know, one says
    states = sorted(path.name for path in (folder / "run" / "states").iterdir())
    assert states == ["0000000192", "0000000256"]


def the_device_loop_steps_environments_of_each_process(folder):
    ours, theirs = peers("device_loop", folder)
    assert ours["learner"] == theirs["learner"]
    assert ours["ring"] != theirs["ring"]


def a_fault_of_one_process_is_told_to_all(folder):
    ours, theirs = peers("fail_on_one", folder)
    assert theirs["said"].startswith("the reward of environment 0 is nan at frame")
    assert ours["said"] == f"process 1 of 2: {theirs['said']}"


def a_peer_that_is_killed_ends_the_others(folder, victim=1, blow=signal.SIGKILL, flags=FLAGS):
    run, port = folder / "run", free_port()
    words = ["train", *flags.split(), "--total-frames", "100000", "--output", run]
    with started([command(folder, *words, index=index, port=port) for index in (0, 1)]) as processes:
        states = run / "states"
        wait_for(lambda: len(list(states.glob("*[0-9]"))) >= 1, processes)
        survivor = processes[1 - victim]
        processes[victim].send_signal(blow)
        killed = time.monotonic()
        _, said = survivor.communicate(timeout=40)
        took = time.monotonic() - killed
        processes[victim].kill()
    assert took < 30, took
    assert survivor.returncode not in (0, None)
    last = said.strip().splitlines()[-1]
    assert "lost" in last, said
    frame = int(max(path.name for path in states.glob("*[0-9]")))
    assert f"`jaxdqn resume {run}` goes on from frame {frame:,}" in last, last
    print(f"  process {victim}, {signal.Signals(blow).name}: {took:.1f} s, exit {survivor.returncode}: {last}")
    assert [path.name for path in folder.iterdir()] == ["run"]
    for state in states.glob("*[0-9]"):  # which is written only where parameters are equal
        assert (state / "process-1" / "manifest.json").is_file()
    frames = rows(folder)
    assert frames == list(range(16, frames[-1] + 1, 16))
    return frame


def a_run_that_has_lost_a_process_goes_on_alone(folder):
    frame = a_peer_that_is_killed_ends_the_others(folder, flags=PIXELS)
    run, states = folder / "run", folder / "run" / "states"
    with started([[*JAXDQN, "resume", run, "--total-frames", 100_000]]) as (alone,):
        wait_for(lambda: max(map(int, (path.name for path in states.glob("*[0-9]")))) > frame, [alone])
        alone.send_signal(signal.SIGTERM)
        out, err = alone.communicate(timeout=60)
    assert alone.returncode == 143, err
    assert "the run had 2 processes and has 1 now: environments begin new episodes" in out, out
    frames = rows(folder)
    assert frames == list(range(16, frames[-1] + 1, 16))


def the_coordinator_is_lost(folder):
    a_peer_that_is_killed_ends_the_others(folder, victim=0)


def a_peer_hangs(folder):
    a_peer_that_is_killed_ends_the_others(folder, blow=signal.SIGSTOP)


def sigterm_ends_all_with_a_state(folder, to=(1,)):
    run, port = folder / "run", free_port()
    words = ["train", *FLAGS.split(), "--total-frames", "100000", "--checkpoint-every", "0", "--output", run]
    with started([command(folder, *words, index=index, port=port) for index in (0, 1)]) as processes:
        wait_for(lambda: (run / "metrics.csv").is_file() and len(rows(folder)) > 10, processes)
        asked = time.monotonic()
        for index in to:
            processes[index].send_signal(signal.SIGTERM)
            time.sleep(0.2)
        said = [process.communicate(timeout=40) for process in processes]
        took = time.monotonic() - asked
    assert [process.returncode for process in processes] == [143, 143], said
    assert took < 10, took
    (state,) = (run / "states").iterdir()
    assert int(state.name) == rows(folder)[-1]
    assert (state / "process-1" / "manifest.json").is_file()


def and_so_where_both_are_sent_it(folder):
    sigterm_ends_all_with_a_state(folder, to=(0, 1))


def a_run_of_two_takes_more_frames(folder):
    run = folder / "run"
    for words in (
        ["train", *FLAGS.split(), "--total-frames", 320, "--output", run],
        ["resume", run, "--total-frames", 480],
    ):
        port = free_port()
        with started([command(folder, *words, index=index, port=port) for index in (0, 1)]) as processes:
            said = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
    assert rows(folder) == list(range(16, 481, 16))
    with started([command(folder, "resume", run, index=index, port=port) for index in (0, 1)]) as processes:
        said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    assert all("the run is complete at frame 480" in words for words in said), said


def a_coordinator_that_is_not_there_is_said(folder):
    port = free_port()
    words = ["train", *FLAGS.split(), "--output", folder / "run", "--connect-timeout", 3]
    with started([command(folder, *words, index=1, port=port)]) as (alone,):
        _, said = alone.communicate(timeout=30)
    assert alone.returncode == 2
    wanted = (
        f"jaxdqn: --distributed: 127.0.0.1:{port} has not answered, or not all processes have come there within 3 s"
    )
    assert said.startswith(wanted), said
    assert said.count("\n") == 1
    assert not (folder / "run").exists()


def the_coordinator_listens_where_it_is_told(folder):
    """A line says so where that is everywhere and nobody asked for it."""
    for coordinator, bind, wanted in (
        ("127.0.0.1", [], "127.0.0.1"),
        ("203.0.113.7", [], None),
        ("203.0.113.7", ["--coordinator-bind", "127.0.0.1"], "127.0.0.1"),
    ):
        port = free_port()
        where = ["--distributed", "--coordinator", f"{coordinator}:{port}", "--num-processes", 2, "--process-id", 0]
        words = [*JAXDQN, "train", *FLAGS.split(), "--output", folder / "run", *where, *bind]
        with started([words]) as (alone,):
            wait_for(lambda: listening(alone, port), [alone])  # noqa: B023, it is called at once
            (host,) = listening(alone, port)
            alone.kill()
            _, said = alone.communicate(timeout=30)
        assert host.removeprefix("::ffff:") == wanted if wanted else host in ("::", "0.0.0.0"), host
        assert said == "" if wanted else said.startswith("jaxdqn: --distributed: process 0 listens on all"), said


def a_cluster_tells_each_its_place(folder):
    """As SLURM does, which JAX reads; without one, the flags that are needed are named."""
    words = [*JAXDQN, "train", *FLAGS.split(), "--total-frames", "128", "--output", folder / "run", "--distributed"]
    job = {"SLURM_JOB_ID": free_port(), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": 2}
    envs = [{**job, "SLURM_PROCID": index, "SLURM_LOCALID": index} for index in (0, 1)]
    envs = [{name: str(value) for name, value in env.items()} for env in envs]
    with started([words, words], envs) as processes:
        said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert f"kept in {folder / 'run'}" in said[0][0]
    assert "kept in" not in said[1][0]
    with started([[*words[:-2], folder / "other", words[-1]]]) as (alone,):
        _, said = alone.communicate(timeout=60)
    assert alone.returncode == 2
    wanted = "no cluster is found: give --coordinator HOST:PORT --num-processes N --process-id I"
    assert said == f"jaxdqn: --distributed: {wanted}\n", said


def other_flags_are_refused_by_all(folder):
    port = free_port()
    both = [["train", *FLAGS.split(), "--output", folder / "run", "--gamma", gamma] for gamma in (0.9, 0.8)]
    with started([command(folder, *words, index=index, port=port) for index, words in enumerate(both)]) as processes:
        said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    assert all("process 1 has gamma 0.8 and process 0 0.9: start all with the same" in text for text in said), said
    assert not (folder / "run").exists()


SHORT = (a_peer_that_is_killed_ends_the_others, a_coordinator_that_is_not_there_is_said)
LONG = (
    *SHORT,
    two_processes_train_pixel_cartpole_and_write_one_folder,
    two_processes_learn_the_probes_and_end_with_equal_parameters,
    a_run_of_two_processes_goes_on_bit_for_bit,
    and_so_on_the_device,
    a_state_that_one_process_cannot_write_is_none,
    the_device_loop_steps_environments_of_each_process,
    a_fault_of_one_process_is_told_to_all,
    a_run_that_has_lost_a_process_goes_on_alone,
    the_coordinator_is_lost,
    a_peer_hangs,
    sigterm_ends_all_with_a_state,
    and_so_where_both_are_sent_it,
    a_run_of_two_takes_more_frames,
    the_coordinator_listens_where_it_is_told,
    a_cluster_tells_each_its_place,
    other_flags_are_refused_by_all,
)

if __name__ == "__main__":
    named = [check for check in LONG if check.__name__ in sys.argv[1:]]
    for check in named or (SHORT if "short" in sys.argv else LONG):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            check(Path(name))
        print(f"{check.__name__} {time.monotonic() - began:.1f} s", flush=True)
