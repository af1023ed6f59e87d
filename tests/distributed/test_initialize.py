"""How processes find each other and how the watchdog reports; `test_distributed.py` starts real processes."""

import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import jaxdqn
from jaxdqn.distributed import bind_address as coordinator
from jaxdqn.distributed.bind_address import choose_bind_address, resolve_cluster
from jaxdqn.distributed.initialize import initialize
from jaxdqn.distributed.options import DistributedOptions


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
        ({"distributed": True, "coordinator_bind": "[abc]:80"}, "must be HOST or HOST:PORT"),
        ({"distributed": True, "coordinator_bind": "a:b:c"}, "--coordinator-bind 'a:b:c' must be HOST or HOST:PORT"),
        ({"distributed": True, "num_processes": 0}, "--num-processes 0 must be at least 1"),
        ({"distributed": True, "num_processes": 2, "process_id": 2}, "--process-id 2 must be from 0 to"),
        ({"distributed": True, "connect_timeout": 0}, "--connect-timeout 0 must be at least 1"),
    ],
)
def test_invalid_distributed_flags_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        DistributedOptions(**fields).check()
    DistributedOptions(distributed=True, coordinator="[::1]:1", num_processes=2, process_id=1).check()
    for bind in ("10.0.0.1", "10.0.0.1:80", "node-1.cluster", "::", "[::1]", "[::1]:80"):
        DistributedOptions(distributed=True, coordinator="node:1", coordinator_bind=bind).check()


@pytest.fixture
def addresses(monkeypatch):
    """Replace name resolution and this machine's addresses by known ones."""
    known = {
        "localhost": ["127.0.0.1", "::1"],
        "alias": ["127.0.1.1"],
        "node": ["10.1.1.1"],
        "both.cluster": ["10.1.1.1", "10.2.2.2"],
        "dual.cluster": ["fd00::1", "10.1.1.1"],
        "elsewhere.cluster": ["203.0.113.7"],
    }
    getaddrinfo = socket.getaddrinfo

    def resolve(host, *args, **options):
        return [found for each in known.get(host, [host]) for found in getaddrinfo(each, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    own = ["127.0.0.1", "10.1.1.1", "10.2.2.2", "::1", "fd00::1", "fe80::1%eth0"]
    found = {"any": [SimpleNamespace(address=address) for address in own]}
    monkeypatch.setattr(coordinator.psutil, "net_if_addrs", lambda: found)
    monkeypatch.setattr(coordinator, "_check_port_free", lambda *args: None)  # it would bind the address
    monkeypatch.delenv("JAX_COORDINATOR_BIND_ADDRESS", raising=False)


def bind_address(address, bind=None):
    return choose_bind_address(
        DistributedOptions(distributed=True, coordinator=address, coordinator_bind=bind, process_id=0)
    )


@pytest.mark.parametrize(
    ("address", "bind", "wanted", "note"),
    [
        ("127.0.0.1:7", None, "127.0.0.1:7", None),
        ("10.1.1.1:7", None, "10.1.1.1:7", None),
        ("[fd00::1]:7", None, "[fd00::1]:7", None),
        ("localhost:7", None, "127.0.0.1:7", None),
        ("node:7", None, "10.1.1.1:7", "listens only on 10.1.1.1, the address of node: --coordinator-bind"),
        ("203.0.113.7:7", None, None, "listens on all interfaces, as 203.0.113.7:7 is not one address"),
        ("elsewhere.cluster:7", None, None, "listens on all interfaces"),  # of another machine, or behind a router
        ("unknown.invalid:7", None, None, "listens on all interfaces"),
        ("both.cluster:7", None, None, "listens on all interfaces"),  # other hosts may resolve it to either
        ("dual.cluster:7", None, None, "listens on all interfaces"),
        ("alias:7", None, None, "listens on all interfaces"),  # the address that Debian gives a machine's own name
        ("0.0.0.0:7", None, "0.0.0.0:7", "listens on all interfaces"),
        ("elsewhere.cluster:7", "10.2.2.2", "10.2.2.2:7", None),
        ("elsewhere.cluster:7", "node", "10.1.1.1:7", None),
        ("elsewhere.cluster:7", "10.2.2.2:8", "10.2.2.2:8", None),
        ("elsewhere.cluster:7", "::1", "[::1]:7", None),
        ("alias:7", "0.0.0.0", "0.0.0.0:7", None),
        ("both.cluster:7", "10.2.2.2", "10.2.2.2:7", None),
    ],
)
def test_process_0_listens_on_the_coordinators_address_or_the_given_one(addresses, address, bind, wanted, note):
    found = bind_address(address, bind)
    assert found.address == wanted
    assert found.note is None if note is None else note in found.note


@pytest.mark.parametrize(
    ("address", "bind", "says"),
    [
        ("node:7", "203.0.113.7", "--coordinator-bind 203.0.113.7 is not an address of this machine: give one"),
        ("node:7", "10.2.2.2", "process 0 itself connects to node:7, which is 10.1.1.1 here: give --coordinator 10.2"),
        ("alias:7", "10.1.1.1", "process 0 itself connects to alias:7, which is 127.0.1.1 here: give --coordinator 1"),
        ("node:7", "10.1.1.1:8", "process 0 itself connects to node:7"),
    ],
)
def test_bind_address_that_process_0_itself_cannot_reach_is_refused(addresses, address, bind, says):
    with pytest.raises(ValueError, match=says):
        bind_address(address, bind)


def test_addresses_from_environment_variables_are_used_and_named_in_errors(addresses, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", "10.2.2.2:9")
    assert bind_address("elsewhere.cluster:7") == ("10.2.2.2:9", None)
    assert bind_address("elsewhere.cluster:7", "10.1.1.1") == ("10.1.1.1:7", None)
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", "junk junk")
    with pytest.raises(ValueError, match="JAX_COORDINATOR_BIND_ADDRESS junk junk is not an address"):
        bind_address("elsewhere.cluster:7")
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "10.1.1.1")
    with pytest.raises(ValueError, match=r"coordinator '10.1.1.1' must be HOST:PORT"):
        choose_bind_address(resolve_cluster(DistributedOptions(distributed=True, num_processes=2, process_id=0)))


def test_port_in_use_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for address, bind in ((f"127.0.0.1:{port}", None), ("203.0.113.7:1", f"127.0.0.1:{port}")):
            with pytest.raises(ValueError, match=rf"{port}: port {port} of 127.0.0.1: Address already in use: choose"):
                bind_address(address, bind)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "^--distributed: no cluster found: give --coordinator HOST:PORT --num-processes N --process-id I$"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 1}, "^--distributed: a port must be defined$"),
    ],
)
def test_only_an_option_that_is_unset_is_reported_as_missing(options, says, monkeypatch):
    def fail(**_):
        raise ValueError("a port must be\n defined")

    monkeypatch.setattr("jax.distributed.initialize", fail)
    monkeypatch.setattr("jax.config.update", lambda *_: None)
    with pytest.raises(ValueError, match=says):
        initialize(DistributedOptions(distributed=True, **options))


def test_unset_options_are_taken_from_the_cluster(monkeypatch):
    job = {"SLURM_JOB_ID": 4097, "SLURM_STEP_NODELIST": "node[003-004]", "SLURM_NTASKS": 2, "SLURM_LOCALID": 0}
    for name, value in {**job, "SLURM_PROCID": 1}.items():
        monkeypatch.setenv(name, str(value))
    found = resolve_cluster(DistributedOptions(distributed=True))
    assert (found.coordinator, found.num_processes, found.process_id) == ("node003:61441", 2, 1)
    given = DistributedOptions(distributed=True, coordinator="here:7", num_processes=4, process_id=0)
    assert resolve_cluster(given) == given
    for name in job:
        monkeypatch.delenv(name)
    assert resolve_cluster(DistributedOptions(distributed=True)) == DistributedOptions(distributed=True)
    with pytest.raises(
        ValueError, match=r"--coordinator-bind 10.0.0.1: it is unknown which process is the coordinator"
    ):
        resolve_cluster(DistributedOptions(distributed=True, coordinator_bind="10.0.0.1"))


def test_watchdog_prints_the_resume_command_if_its_process_is_killed(tmp_path):
    (tmp_path / "states" / "0000003000").mkdir(parents=True)
    code = (
        "import os, signal, sys, pathlib; from jaxdqn.distributed.watchdog import Watchdog\n"
        "with Watchdog('process 1 of 2') as watchdog:\n"
        f"    watchdog.watch(pathlib.Path({str(tmp_path)!r}))\n"
        "    if sys.argv[1:]: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for words, says in ((["die"], f"`jaxdqn resume {tmp_path}` resumes from frame 3,000"), ([], "")):
        root = Path(jaxdqn.__file__).parent.parent
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=root, capture_output=True, text=True, timeout=60, check=False
        )
        assert says in done.stderr
        assert ("process 1 of 2 was killed" in done.stderr) == bool(words)
