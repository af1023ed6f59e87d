"""The figures that the documentation shows: the CSV files of `experiments/results`."""

import csv
from pathlib import Path

RESULTS = Path(__file__).parent.parent.parent / "experiments" / "results"


def rows_of(name):
    """The rows of `experiments/results/NAME.csv`."""
    return read_rows(RESULTS / f"{name}.csv")


def read_rows(path):
    """The rows of a CSV file, as text."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
