"""Start processes that train together over loopback, for `distributed_checks.py`."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
JAXDQN = ("-c", "from jaxdqn.cli.main import main; main()")

FLAGS = "--no-pixels --num-devices 2 --num-envs 4 --frames-per-batch 16 --batch-size 8 --updates-per-batch 2"
FLAGS += " --warmup-frames 64 --evaluation-episodes 1 --checkpoint-every 320 --evaluate-every 640"
PIXELS = FLAGS.replace("--no-pixels", "--frame-size 44 --frame-stack 2 --normalisation-frames 20").replace("320", "96")


def python_path():
    """Return the `PYTHONPATH` of child processes: this repository, the test helpers, the experiments."""
    folders = [HERE.parent.parent, HERE.parent / "helpers", HERE, HERE.parent.parent / "experiments"]
    return os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])


@contextlib.contextmanager
def started(commands, envs=None):
    """Start processes and kill them when the block ends; `envs` are additional environment variables of each."""
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": python_path()}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, *map(str, command)], env={**env, **own}, **pipes)
        for command, own in zip(commands, envs or [{}] * len(commands), strict=True)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                pipe.close()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def listening_addresses(process, port):
    """Return the addresses on which a process listens at a port."""
    found = psutil.Process(process.pid).net_connections("inet")
    return [each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN and each.laddr.port == port]


def run_role(role, folder, count=2):
    """Run a role of `peer.py` in each of `count` processes, and return what each printed as JSON."""
    port = free_port()
    with started([[HERE / "peer.py", role, port, index, count, folder] for index in range(count)]) as processes:
        outputs = [process.communicate(timeout=240) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def command(folder, *words, index, port, count=2):
    """Return the command `jaxdqn ... --distributed` of one process."""
    flags = ["--distributed", "--coordinator", f"127.0.0.1:{port}", "--num-processes", count, "--process-id", index]
    return [*JAXDQN, *words, *flags]


def rows(folder):
    lines = (folder / "run" / "metrics.csv").read_text().splitlines()[1:]
    return [int(line.split(",")[0]) for line in lines]


def wait_for(condition, processes, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert all(process.poll() is None for process in processes), [process.communicate() for process in processes]
        assert time.monotonic() < deadline
        time.sleep(0.05)
