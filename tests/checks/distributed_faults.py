"""Failures of one of several processes: checks of `distributed_checks.py`."""

import signal
import time

from processes import FLAGS, JAXDQN, PIXELS, command, free_port, rows, run_role, started, wait_for


def error_of_one_process_is_raised_on_all(folder):
    first, second = run_role("fail_on_one", folder)
    assert second["message"].startswith("the reward of environment 0 is nan at frame")
    assert first["message"] == f"process 1 of 2: {second['message']}"


def killed_process_ends_the_others(folder, victim=1, signal_number=signal.SIGKILL, flags=FLAGS):
    run, port = folder / "run", free_port()
    words = ["train", *flags.split(), "--total-frames", "100000", "--output", run]
    with started([command(folder, *words, index=index, port=port) for index in (0, 1)]) as processes:
        states = run / "states"
        wait_for(lambda: len(list(states.glob("*[0-9]"))) >= 1, processes)
        survivor = processes[1 - victim]
        processes[victim].send_signal(signal_number)
        killed = time.monotonic()
        _, err = survivor.communicate(timeout=40)
        took = time.monotonic() - killed
        processes[victim].kill()
    assert took < 30, took
    assert survivor.returncode not in (0, None)
    # JAX may abort the process just when it ends by itself, and then prints lines of its own.
    last = next(line for line in reversed(err.splitlines()) if line.startswith("jaxdqn: training stopped: "))
    assert "lost" in last, err
    frame = int(max(path.name for path in states.glob("*[0-9]")))
    assert f"`jaxdqn resume {run}` resumes from frame {frame:,}" in last, last
    print(f"  process {victim}, {signal.Signals(signal_number).name}: {took:.1f} s, exit {survivor.returncode}: {last}")
    assert [path.name for path in folder.iterdir()] == ["run"]
    for state in states.glob("*[0-9]"):  # a state is written only if parameters are equal on all processes
        assert (state / "process-1" / "manifest.json").is_file()
    frames = rows(folder)
    assert frames == list(range(16, frames[-1] + 1, 16))
    return frame


def run_that_lost_a_process_resumes_on_one(folder):
    frame = killed_process_ends_the_others(folder, flags=PIXELS)
    run, states = folder / "run", folder / "run" / "states"
    with started([[*JAXDQN, "resume", run, "--total-frames", 100_000]]) as (alone,):
        wait_for(lambda: max(map(int, (path.name for path in states.glob("*[0-9]")))) > frame, [alone])
        alone.send_signal(signal.SIGTERM)
        out, err = alone.communicate(timeout=60)
    assert alone.returncode == 143, err
    assert "the run had 2 processes and has 1 now: environments begin new episodes" in out, out
    frames = rows(folder)
    assert frames == list(range(16, frames[-1] + 1, 16))


def killed_coordinator_ends_the_others(folder):
    killed_process_ends_the_others(folder, victim=0)


def hanging_process_ends_the_others(folder):
    killed_process_ends_the_others(folder, signal_number=signal.SIGSTOP)


def sigterm_to_one_process_ends_all_with_a_state(folder, receivers=(1,)):
    run, port = folder / "run", free_port()
    words = ["train", *FLAGS.split(), "--total-frames", "100000", "--checkpoint-every", "0", "--output", run]
    with started([command(folder, *words, index=index, port=port) for index in (0, 1)]) as processes:
        wait_for(lambda: (run / "metrics.csv").is_file() and len(rows(folder)) > 10, processes)
        signalled = time.monotonic()
        for index in receivers:
            processes[index].send_signal(signal.SIGTERM)
            time.sleep(0.2)
        outputs = [process.communicate(timeout=40) for process in processes]
        took = time.monotonic() - signalled
    assert [process.returncode for process in processes] == [143, 143], outputs
    assert took < 10, took
    (state,) = (run / "states").iterdir()
    assert int(state.name) == rows(folder)[-1]
    assert (state / "process-1" / "manifest.json").is_file()


def sigterm_to_both_processes_ends_them_with_a_state(folder):
    sigterm_to_one_process_ends_all_with_a_state(folder, receivers=(0, 1))


def state_that_one_process_cannot_write_is_not_kept(folder):
    first, second = run_role("fail_to_save_once", folder)
    assert first["learner"] == second["learner"]
    assert first["notes"] == ["no checkpoint of frame 64: process 1 of 2: no room; there is none yet"]
    assert second["notes"] == []  # only the first process reports it
    states = sorted(path.name for path in (folder / "run" / "states").iterdir())
    assert states == ["0000000192", "0000000256"]
