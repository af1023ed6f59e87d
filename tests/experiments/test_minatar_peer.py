"""The comparison with rejax: its table, and a short run."""

from importlib import import_module as script

import numpy as np
import pytest
from csv_files import read_rows

pytest.importorskip("rejax", reason="extra bench")


def test_the_table_has_the_seconds_after_which_ours_has_the_return_of_rejax():
    rows = [
        {"of": name, "seed": seed, "frames": frames, "mean": mean, "seconds": seconds}
        for name, seed, frames, mean, seconds in (
            *(("jaxdqn", 0, 10, 3.0, 40.0), ("jaxdqn", 0, 20, 5.0, 60.0), ("jaxdqn", 0, 30, 9.0, 80.0)),
            *(("rejax", 0, 10, 1.0, 30.0), ("rejax", 0, 20, 4.0, 60.0), ("rejax", 0, 30, 5.0, 100.0)),
            *(("jaxdqn", 1, 20, 2.0, 40.0), ("jaxdqn", 1, 30, 2.0, 80.0)),
            *(("rejax", 1, 20, 5.0, 50.0), ("rejax", 1, 30, 5.0, 100.0)),
        )
    ]
    first, second = script("minatar_peer").table(rows, evaluations=2)
    assert list(first.values()) == [0, "7.0", "4.5", "80", "100", "80 s", "100 s"]
    assert list(second.values()) == [1, "2.0", "5.0", "80", "100", "never", "100 s"]
    assert script("minatar_peer").running_means([1, 2, 6], 2) == [-np.inf, 1.5, 4.0]


@pytest.mark.long
def test_both_sides_train_and_are_evaluated_at_the_same_frames(tmp_path, capsys):
    words = ["--frames", "6016", "--evaluations", "2", "--seeds", "0", "--output", str(tmp_path)]
    script("minatar_peer").main(words)
    rows = read_rows(tmp_path / "minatar_peer.csv")
    assert [(row["of"], row["frames"]) for row in rows] == [
        *(("jaxdqn", "6016"), ("rejax", "6016")),  # 3008 is within the warm-up
    ]
    assert "| 0 | " in capsys.readouterr().out
