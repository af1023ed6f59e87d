"""Train many seeds and many learning rates in one compiled program, on the device.

    python3 experiments/many_seeds.py --seeds 8 --learning-rates 1e-3 3e-4 --output runs/many-seeds -- --no-pixels

Arguments: `--seeds` (number of seeds), `--learning-rates`, `--preset` (cartpole), `--every` (frames between
evaluations), `--episodes` (of an evaluation), `--output`; flags of `jaxdqn train` follow after `--`. Every combination
of seed and learning rate is a separate run, and one `jax.vmap` trains all of them. It writes `many_seeds.csv` (one row
for each evaluation) and `many_seeds.png` (the interquartile mean over seeds, with its 95 % bootstrap interval), and
prints a table.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

from shared.command_line import config_of, positive, split_flags
from shared.seeds import train_side_by_side
from shared.variants import collect_rows, make_parser, report

from jaxdqn.presets import PRESETS


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line, train, print, draw."""
    words, flags = split_flags(args)
    parser = make_parser(__doc__, "many_seeds")
    parser.add_argument("--seeds", type=positive, default=8, help="number of seeds of each learning rate, from 0")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=None, help="default: the config's")
    parser.add_argument("--preset", choices=PRESETS, default="cartpole")
    options = parser.parse_args(words)
    try:
        config = config_of(flags, PRESETS[options.preset])
        rates = options.learning_rates or [config.learning_rate]
        for rate in rates:
            if not 0 < rate < math.inf or rates.count(rate) > 1:
                raise ValueError(f"--learning-rates {rate:g} must be above 0, finite, and given only once")
        runs = list(itertools.product(rates, range(options.seeds)))
        factors = [rate / config.learning_rate for rate, _ in runs]
        names = [f"learning rate {rate:g}" for rate, _ in runs]
        started = time.monotonic()
        seeds = [seed for _, seed in runs]
        scores = train_side_by_side(config, seeds, factors=factors, every=options.every, episodes=options.episodes)
    except ValueError as error:
        parser.error(str(error))
    rows = collect_rows(names, seeds, scores)
    report(rows, list(dict.fromkeys(names)), options.output / "many_seeds")
    seconds = time.monotonic() - started
    frames = rows[-1]["frames"]
    rate = len(runs) * frames / seconds
    print(f"{len(runs)} runs of {frames:,} frames in {seconds:.0f} s: {rate:.0f} frames/s in total")


if __name__ == "__main__":
    main()
