"""Runs with several processes: the checks of `distributed_checks.py`.

By default only the quickest run; `-m several` selects those that CI runs in addition, and `-m long` the rest.
"""

import distributed_checks
import pytest


def marks_of(check):
    if check in distributed_checks.SHORT:
        return ()
    return pytest.mark.long if check in distributed_checks.SLOWEST else pytest.mark.several


CHECKS = [pytest.param(check, id=check.__name__, marks=marks_of(check)) for check in distributed_checks.ALL]


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_check_passes(check, tmp_path):
    check(tmp_path)
