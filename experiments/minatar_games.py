"""Train the DQN family on MinAtar with the preset `minatar`, which was tuned on no seed: returns and seconds.

    python3 experiments/minatar_games.py --together 5 --output runs/minatar
    python3 experiments/minatar_games.py --task family --together 3 --output runs/minatar-family [-- FLAGS]

Arguments: `--task` (`games`: DQN and Rainbow on four games, 1,000,000 frames; `family`: every algorithm on Breakout and
Freeway, 500,000 frames), `--only "GAME, ALGORITHM" ...` (`breakout, dqn`), `--seeds` (200 to 204 and 200 to 202),
`--together` (seeds in one program), `--every` (frames between evaluations), `--episodes` (of an evaluation),
`--output`; FLAGS are flags of `jaxdqn train`. All runs are on the device loop; a frame is a step of the game. A run
that is finished is not repeated. It writes `minatar_games.csv` (one row for each evaluation), `minatar_games.png` and
`minatar_games_table.csv`, and prints that table: the last return and the mean over all evaluations (interquartile
means with 95 % bootstrap intervals), and the seconds of a program, divided by its seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shared.curves import Rows
from shared.seeds import markdown, write_table
from shared.variants import Variant, return_cells, run_variants, seconds_cell

from jaxdqn.algorithms import ALGORITHMS
from jaxdqn.config_checks import WITH_SUPPORT
from jaxdqn.presets import PRESETS

GAMES = {
    "asterix": "MinAtar/Asterix-v1",
    "breakout": "MinAtar/Breakout-v1",
    "freeway": "MinAtar/Freeway-v1",
    "space-invaders": "MinAtar/SpaceInvaders-v1",
}
SUPPORT = {"v_min": 0.0, "v_max": 40.0}
"""Rewards are 0 or 1, and one in three steps, for ever, is a discounted return of 33."""

RAINBOW = {"dueling": True, "n_steps": 3}
"""What Rainbow has in addition to the pieces of `ALGORITHMS`."""

MINATAR = PRESETS["minatar"]
TASKS = {"games": MINATAR, "family": dataclasses.replace(MINATAR, total_frames=500_000)}
SEEDS = {"games": [200, 201, 202, 203, 204], "family": [200, 201, 202]}


def variants_of(games: Iterable[str], algorithms: Iterable[str]) -> tuple[Variant, ...]:
    """Return the runs of some games and algorithms: their pieces, and the numbers that belong to them."""
    found = []
    for algorithm in algorithms:
        support = SUPPORT if ALGORITHMS[algorithm]["distribution"] in WITH_SUPPORT else {}
        settings = {**ALGORITHMS[algorithm], **support, **(RAINBOW if algorithm == "rainbow" else {})}
        found += [Variant(f"{game}, {algorithm}", {"env": GAMES[game], **settings}) for game in games]
    return tuple(found)


VARIANTS = {
    "games": variants_of(list(GAMES), ("dqn", "rainbow")),
    "family": variants_of(("breakout", "freeway"), ALGORITHMS),
}


def table(rows: Rows, names: Sequence[str], *, folder: Path, **_: Any) -> str:
    """Save the table, with a row for each game and algorithm, and return it as Markdown."""
    lines = []
    for name in sorted(names, key=lambda name: name.split(", ")[0]):  # the algorithms of a game keep their order
        game, algorithm = name.split(", ")
        frames = max(row["frames"] for row in rows if row["variant"] == name)
        cells = {**return_cells(rows, name), **seconds_cell(rows, name)}
        lines.append({"game": game, "algorithm": algorithm, "frames": f"{frames:,}", **cells})
    write_table(folder / "minatar_games_table.csv", lines)
    return markdown(lines)


def main(args: Sequence[str] | None = None) -> None:
    """Train and report."""
    options = {"tasks": TASKS, "make_table": table, "every": 25_000}
    run_variants("minatar_games", VARIANTS, __doc__, seeds=SEEDS, args=args, **options)


if __name__ == "__main__":
    main()
