"""Free memory: the machine's, or what a container leaves of it."""

import psutil
import pytest

from jaxdqn.run import resources


def test_free_memory_is_that_of_the_machine_without_a_container(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "_LIMIT", tmp_path / "none")
    assert 0 < resources.free_bytes() <= psutil.virtual_memory().total


@pytest.mark.parametrize(("limit", "free"), [("3000\n", 2000), ("max\n", 5000), ("9000\n", 5000)])
def test_a_container_may_leave_less_than_the_machine_has(monkeypatch, tmp_path, limit, free):
    (tmp_path / "max").write_text(limit)
    (tmp_path / "current").write_text("1000\n")
    monkeypatch.setattr(resources, "_LIMIT", tmp_path / "max")
    monkeypatch.setattr(resources, "_USED", tmp_path / "current")
    monkeypatch.setattr(resources.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 5000})())
    assert resources.free_bytes() == free
