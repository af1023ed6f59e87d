"""Processes that train together: the checks of `distributed_checks.py`.

The suite has the quickest, `-m several` those that CI runs besides, and `-m long` the rest.
"""

import distributed_checks
import pytest


def marks_of(check):
    if check in distributed_checks.SHORT:
        return ()
    return pytest.mark.long if check in distributed_checks.SLOWEST else pytest.mark.several


CHECKS = [pytest.param(check, id=check.__name__, marks=marks_of(check)) for check in distributed_checks.LONG]


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_processes_that_train_together(check, tmp_path):
    check(tmp_path)
