"""Free memory of the machine or of its container, and the cache of compiled programs."""

import os
import subprocess
import sys
from unittest.mock import Mock

import jax
import psutil
import pytest
from running import set_free_memory

from jaxdqn.storage import free_memory


def test_free_memory_without_a_container_is_the_machines(monkeypatch, tmp_path):
    monkeypatch.setattr(free_memory, "_CONTAINER_LIMIT", tmp_path / "none")
    assert 0 < free_memory.free_bytes() <= psutil.virtual_memory().total


@pytest.mark.parametrize(("limit", "free"), [("3000\n", 2000), ("max\n", 5000), ("9000\n", 5000)])
def test_free_memory_is_limited_by_the_container(monkeypatch, tmp_path, limit, free):
    (tmp_path / "max").write_text(limit)
    (tmp_path / "current").write_text("1000\n")
    monkeypatch.setattr(free_memory, "_CONTAINER_LIMIT", tmp_path / "max")
    monkeypatch.setattr(free_memory, "_CONTAINER_USED", tmp_path / "current")
    set_free_memory(monkeypatch, 5000)
    assert free_memory.free_bytes() == free


def test_processes_and_cpu_devices_share_the_machines_memory(monkeypatch, tmp_path):
    (tmp_path / "max").write_text("3000")
    (tmp_path / "current").write_text("0")
    monkeypatch.setattr(free_memory, "_CONTAINER_LIMIT", tmp_path / "max")
    monkeypatch.setattr(free_memory, "_CONTAINER_USED", tmp_path / "current")
    set_free_memory(monkeypatch, 5000)
    for (machine, container), host in (((1, 1), 3000), ((2, 1), 2500), ((2, 2), 1500), ((5, 2), 1000)):
        sharing = free_memory.Sharing(machine, container)
        assert free_memory.free_host_bytes(sharing) == host
        assert [free_memory.free_bytes(devices, sharing) for devices in (1, 2, 4)] == [host, host // 2, host // 4]


def test_processes_on_the_same_machine_and_container_are_counted():
    places = [["a", "1"], ["b", "1"], ["a", "2"], ["a", "1"]]
    assert [tuple(free_memory.sharing_of(places, index)) for index in range(4)] == [(3, 2), (1, 1), (3, 1), (3, 2)]
    here = free_memory.machine_and_container()
    assert tuple(free_memory.sharing_of([here, here], 1)) == (2, 2)


def test_free_memory_of_accelerators_is_that_of_the_fullest_device(monkeypatch):
    def device(used):
        stats = {"bytes_limit": 100, "bytes_in_use": used}
        return Mock(spec=jax.Device, platform="gpu", memory_stats=lambda: stats)

    monkeypatch.setattr(free_memory.jax, "local_devices", lambda: [device(10), device(40), device(99)])
    assert [free_memory.free_bytes(devices, free_memory.Sharing(8, 8)) for devices in (1, 2, 3)] == [90, 60, 1]


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True])
def test_compiled_programs_are_cached_in_the_users_folder_or_the_default_one(own, tmp_path):
    script = (
        "import jax; from jaxdqn.distributed.devices import enable_compilation_cache; enable_compilation_cache();"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0); jax.jit(lambda x: x + 1)(1)"
    )
    ours, theirs = tmp_path / "xdg" / "jaxdqn", tmp_path / "theirs"
    named = {"JAX_COMPILATION_CACHE_DIR": str(theirs)} if own else {}
    rest = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment = {**rest, **named, "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert [bool(list(folder.glob("*"))) for folder in (ours, theirs)] == [not own, own]
