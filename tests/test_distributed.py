"""Processes that train together: `-m long` runs all checks of `distributed_checks.py`, of which the suite has two."""

import distributed_checks
import pytest

CHECKS = [
    pytest.param(check, id=check.__name__, marks=() if check in distributed_checks.SHORT else pytest.mark.long)
    for check in distributed_checks.LONG
]


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_processes_that_train_together(check, tmp_path):
    check(tmp_path)
