"""Runs with several processes: the checks of `distributed_checks.py`.

`-m several` selects those that CI runs beside the suite, and `-m long` the rest.
"""

import distributed_checks
import pytest


def marks_of(check):
    return pytest.mark.several if check in (*distributed_checks.SHORT, *distributed_checks.MEDIUM) else pytest.mark.long


CHECKS = [pytest.param(check, id=check.__name__, marks=marks_of(check)) for check in distributed_checks.ALL]


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_check_passes(check, tmp_path):
    check(tmp_path)
