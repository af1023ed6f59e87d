"""Show what makes pixel CartPole collapse after it is solved: the default preset with one setting changed at a time.

    python3 experiments/collapse.py --seeds 0 1 2 --output runs/collapse [-- FLAGS]

Arguments: `--seeds`, `--only VARIANT ...`, `--together` (seeds in one program), `--every` (frames between evaluations),
`--episodes` (of an evaluation), `--output`; FLAGS are flags of `jaxdqn train`. It writes `collapse.csv` (one row for
each evaluation) and `collapse.png`, and prints a table: how many seeds were solved, when, and their greedy returns from
then on.
"""

from __future__ import annotations

from shared.variants import Variant, run_variants

from jaxdqn.presets import PRESETS

CARTPOLE = PRESETS["cartpole"]

VARIANTS = (
    Variant("preset"),
    Variant("learning rate stays", {"learning_rate_end": CARTPOLE.learning_rate}),
    Variant("target 5 times as fast", {"tau": 5 * CARTPOLE.tau}),
    Variant("target 5 times as slow", {"tau": CARTPOLE.tau / 5}),
    Variant("epsilon ends at 0.05", {"epsilon_end": 0.05}),
    Variant("no double Q", {"double": False}),
    Variant("online parameters", {"greedy_params": "online"}),
)


if __name__ == "__main__":
    run_variants("collapse", VARIANTS, __doc__, seeds=[0, 1, 2])
