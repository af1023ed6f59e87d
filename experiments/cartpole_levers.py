"""Compare what could make pixel CartPole quicker or steadier: the preset `cartpole` with one thing changed at a time.

    python3 experiments/cartpole_levers.py --seeds 5 6 7 8 9 --output runs/cartpole-levers [-- FLAGS]

Arguments: `--seeds` (those that choose settings, not those that show them), `--only VARIANT ...`, `--together` (seeds
in one program), `--every` (frames between evaluations), `--episodes` (of an evaluation), `--output`; FLAGS are flags of
`jaxdqn train`. All runs are on the device loop, with 6,000 frames, over which the schedules run too. It writes
`cartpole_levers.csv` (one row for each evaluation), `cartpole_levers.png` and `cartpole_levers_table.csv`, and prints
that table: how many seeds had an evaluation at 475 or more, the median frame of the first one, the last return and the
mean of all evaluations (interquartile means with 95 % intervals).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optax
from shared.curves import Rows, curves
from shared.seeds import markdown, write_table
from shared.variants import SOLVED, Variant, return_cells, run_variants

from jaxdqn.config import Config
from jaxdqn.networks.architectures import padded_motion_cnn
from jaxdqn.presets import PRESETS
from jaxdqn.schedules import config_learning_rate

SEEDS = [5, 6, 7, 8, 9]
CARTPOLE = dataclasses.replace(PRESETS["cartpole"], total_frames=6_000, capacity=6_000)
RATE = CARTPOLE.learning_rate
UNPADDED = padded_motion_cnn(2).clone(edge_columns=0)

VARIANTS = (
    Variant("preset"),
    # what the preset has, left out
    Variant("network without edge columns", pieces={"network": UNPADDED}),
    Variant("network motion", {"network": "motion"}),
    Variant("uniform replay", {"prioritized": False}),
    Variant("no shifts", {"random_shift": 0}),
    Variant("no mirror images", {"mirror": False}),
    Variant("no double Q", {"double": False}),
    Variant("greedy target network", {"greedy_params": "target"}),
    Variant("greedy online parameters", {"greedy_params": "online"}),
    Variant("learning rate stays", {"learning_rate_end": RATE}),
    # its numbers
    Variant("8 updates", {"updates_per_batch": 8}),
    Variant("32 updates", {"updates_per_batch": 32}),
    Variant("5 steps", {"n_steps": 5}),
    Variant("20 steps", {"n_steps": 20}),
    Variant("learning rate 2e-3", {"learning_rate": 2 * RATE}),
    Variant("epsilon ends at 0.05", {"epsilon_end": 0.05}),
    Variant("stacks of 4", {"frame_stack": 4}),
    # other pieces
    Variant("target copied every 100", {"target_period": 100}),
    Variant("layer norm", {"layer_norm": True}),
    Variant("AdamW, decay 1e-2", pieces={"optimizer": optax.adamw(config_learning_rate(CARTPOLE), weight_decay=1e-2)}),
    Variant("iqn", {"distribution": "iqn"}),
    Variant("qr", {"distribution": "qr"}),
    Variant("c51", {"distribution": "c51"}),
    Variant("noisy layers", {"noisy": True}),
)


def table(rows: Rows, names: Sequence[str], *, configs: Sequence[Config], folder: Path) -> str:
    """Save the table, with a row for each variant, and return it as Markdown."""
    lines = []
    for name in names:
        runs = curves(rows, name).values()
        firsts = [next((frames for frames, mean in run if mean >= SOLVED), np.inf) for run in runs]
        median = float(np.median(firsts))
        first = {"reach 475": f"{np.isfinite(firsts).sum()}", "median": f"{median:,.0f}" if median < np.inf else "-"}
        lines.append({"variant": name, **first, **return_cells(rows, name)})
    write_table(folder / "cartpole_levers_table.csv", lines)
    return markdown(lines)


def main(args: Sequence[str] | None = None) -> None:
    """Train and report."""
    tasks = {"cartpole": CARTPOLE}
    run_variants("cartpole_levers", VARIANTS, __doc__, seeds=SEEDS, args=args, tasks=tasks, make_table=table)


if __name__ == "__main__":
    main()
