"""How processes meet and part; `test_distributed.py` starts real ones."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from processes import free_port

import jaxdqn
from jaxdqn.launch import Launch
from jaxdqn.run.coordinator import bind_address, found_by_cluster, listens_everywhere


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"coordinator": "a:1"}, "--coordinator a:1 needs --distributed: add it"),
        ({"process_id": 1}, "--process-id 1 needs --distributed: add it"),
        ({"distributed": True, "coordinator": "here"}, "'here' must be HOST:PORT, as in 10.0.0.1:12345"),
        ({"distributed": True, "coordinator": "here:http"}, "must be HOST:PORT"),
        ({"distributed": True, "coordinator": "here:70000"}, "must be HOST:PORT"),
        ({"distributed": True, "coordinator": "::1:12345"}, "must be HOST:PORT"),
        ({"coordinator_bind": "10.0.0.1"}, "--coordinator-bind 10.0.0.1 needs --distributed: add it"),
        ({"distributed": True, "coordinator_bind": "a:b:c"}, "--coordinator-bind 'a:b:c' must be HOST or HOST:PORT"),
        ({"distributed": True, "num_processes": 0}, "--num-processes 0 must be at least 1"),
        ({"distributed": True, "num_processes": 2, "process_id": 2}, "--process-id 2 must be from 0 to"),
        ({"distributed": True, "connect_timeout": 0}, "--connect-timeout 0 must be at least 1"),
    ],
)
def test_flags_that_say_nothing_that_can_be_done_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        Launch(**fields).check()
    Launch(distributed=True, coordinator="[::1]:1", num_processes=2, process_id=1).check()
    for bind in ("10.0.0.1", "10.0.0.1:80", "node-1.cluster", "::", "[::1]", "[::1]:80"):
        Launch(distributed=True, coordinator="node:1", coordinator_bind=bind).check()


@pytest.fixture
def addresses(monkeypatch):
    """Names and what they stand for, in place of the network's."""
    known = {"alias": "127.0.1.1", "here.cluster": "127.0.0.2", "elsewhere.cluster": "203.0.113.7"}
    ask = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **how: ask(known.get(host, host), *rest, **how))


@pytest.mark.parametrize(
    ("coordinator", "bind", "wanted"),
    [
        ("127.0.0.1:%d", None, "127.0.0.1:%d"),
        ("localhost:%d", None, "127.0.0.1:%d"),
        ("203.0.113.7:%d", None, None),  # of another machine, or behind a router
        ("elsewhere.cluster:%d", None, None),
        ("alias:%d", None, None),  # Debian's address of a machine's own name, which no other host reaches
        ("elsewhere.cluster:%d", "127.0.0.1", "127.0.0.1:%d"),
        ("elsewhere.cluster:%d", "here.cluster", "127.0.0.2:%d"),
        ("elsewhere.cluster:%d", "0.0.0.0", "0.0.0.0:%d"),
        ("elsewhere.cluster:1", "127.0.0.1:%d", "127.0.0.1:%d"),
    ],
)
def test_the_coordinator_listens_on_its_own_address_or_where_it_is_told(addresses, coordinator, bind, wanted):
    port = free_port()
    address = bind_address(*(text and text.replace("%d", str(port)) for text in (coordinator, bind)))
    assert address == (wanted and wanted % port)
    assert listens_everywhere(address) == (wanted is None or wanted.startswith("0.0.0.0"))


def test_an_address_that_cannot_be_listened_on_is_refused(addresses):
    with pytest.raises(ValueError, match=r"--coordinator-bind 203.0.113.7: 203.0.113.7 is no address of this machine"):
        bind_address("127.0.0.1:12345", "203.0.113.7")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--coordinator 127.0.0.1:{port}: port {port} of 127.0.0.1: .* in use"):
            bind_address(f"127.0.0.1:{port}")
        with pytest.raises(ValueError, match=f"--coordinator-bind 127.0.0.1:{port}: port {port}"):
            bind_address("127.0.0.1:1", f"127.0.0.1:{port}")


def test_a_cluster_tells_where_the_coordinator_is(monkeypatch):
    job = {"SLURM_JOB_ID": 4097, "SLURM_STEP_NODELIST": "node[003-004]", "SLURM_NTASKS": 2, "SLURM_LOCALID": 0}
    for name, value in {**job, "SLURM_PROCID": 1}.items():
        monkeypatch.setenv(name, str(value))
    assert found_by_cluster(Launch(distributed=True)) == ("node003:61441", 1)
    assert found_by_cluster(Launch(distributed=True, coordinator="here:7", process_id=0)) == ("here:7", 0)
    for name in job:
        monkeypatch.delenv(name)
    assert found_by_cluster(Launch(distributed=True)) == (None, None)


def test_a_witness_speaks_for_a_process_that_was_killed(tmp_path):
    (tmp_path / "states" / "0000003000").mkdir(parents=True)
    code = (
        "import os, signal, sys, pathlib; from jaxdqn.run.witness import Witness\n"
        "with Witness('process 1 of 2') as witness:\n"
        f"    witness.watch(pathlib.Path({str(tmp_path)!r}))\n"
        "    if sys.argv[1:]: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for words, says in ((["die"], f"`jaxdqn resume {tmp_path}` goes on from frame 3,000"), ([], "")):
        root = Path(jaxdqn.__file__).parent.parent
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=root, capture_output=True, text=True, timeout=60, check=False
        )
        assert says in done.stderr
        assert ("process 1 of 2 was ended" in done.stderr) == bool(words)
