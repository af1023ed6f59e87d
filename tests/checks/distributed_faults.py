"""Processes that train together, and one of them fails: checks of `distributed_checks.py`."""

import signal
import time

from processes import FLAGS, JAXDQN, PIXELS, command, free_port, peers, rows, started, wait_for


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
    # JAX may abort the process in the moment in which it ends by itself, and has lines of its own then.
    last = next(line for line in reversed(said.splitlines()) if line.startswith("jaxdqn: training stopped: "))
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


def a_state_that_one_process_cannot_write_is_none(folder):
    ours, theirs = peers("fail_to_save_once", folder)
    assert ours["learner"] == theirs["learner"]
    assert ours["said"] == ["no checkpoint of frame 64: process 1 of 2: no room; there is none yet"]
    assert theirs["said"] == []  # what all know, one says
    states = sorted(path.name for path in (folder / "run" / "states").iterdir())
    assert states == ["0000000192", "0000000256"]
