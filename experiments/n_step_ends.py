"""Show what bootstrapping past a termination costs: TorchRL's n-step targets against correct ones, on the same seeds.

    python3 experiments/n_step_ends.py --seeds 200 201 202 203 --output runs/n-step-ends [-- FLAGS]

Arguments: `--seeds`, `--only VARIANT ...`, `--together` (seeds in one program), `--every` (frames between evaluations),
`--episodes` (of an evaluation), `--output`; FLAGS are flags of `jaxdqn train`. Within `n` steps of a terminal state
TorchRL's targets add the estimated value of that state. The true value is 0 by definition, and no update ever corrects
the estimate. Here the same agents are trained with both targets on the functional CartPole; all other settings are
equal, including the seeds. It writes `n_step_ends.csv` (one row for each evaluation) and `n_step_ends.png`, and prints
a table.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array
from shared.variants import Variant, run_variants

from jaxdqn.returns import n_step_return


def bootstrap_past_ends(reward: Array, terminated: Array, last: Array, gamma: float) -> tuple[Array, Array, Array]:
    """Return `n_step_return` as TorchRL 0.14 computes it: only a window's first step masks the bootstrap.

    Its `MultiStep` takes the next observation from `k` steps later, and `terminated` still from the first step.
    """
    n_step_reward, _, steps = n_step_return(reward, terminated, last, gamma)
    powers = jnp.asarray([gamma**i for i in range(reward.shape[0] + 1)], reward.dtype)
    return n_step_reward, jnp.where(terminated[0], 0.0, powers[steps]), steps


SEEDS = [200, 201, 202, 203]
VARIANTS = (
    Variant("correct"),
    Variant("past the end", pieces={"returns": bootstrap_past_ends}),
)


if __name__ == "__main__":
    run_variants("n_step_ends", VARIANTS, __doc__, seeds=SEEDS)
