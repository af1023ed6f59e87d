"""An algorithm of your own from two pieces, a loss and an n-step return: `python3 examples/own_algorithm.py`.

Expectile Q-learning weighs TD errors below zero by `1 - expectile` and those above by `expectile`: below 0.5 it learns
pessimistic values. The returns are those of n steps in which each reward is clipped to [-1, 1].
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp

import jaxdqn


def expectile_loss(td_error: jax.Array, expectile: float) -> jax.Array:
    """`|expectile - 1[delta < 0]| delta^2` of one TD error; the caller maps it over the batch."""
    weight = jnp.where(td_error < 0, 1 - expectile, expectile)
    return weight * jnp.square(td_error)


def clipped_return(reward: jax.Array, terminated: jax.Array, last: jax.Array, gamma: float) -> tuple[jax.Array, ...]:
    """Reward, discount and length of one window `[n]`; terminations and episode ends are handled by `n_step_return`."""
    return jaxdqn.n_step_return(jnp.clip(reward, -1, 1), terminated, last, gamma)


def main() -> None:
    """Train on CartPole's vector and print the mean return of 20 fresh episodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=50_000)
    parser.add_argument("--expectile", type=float, default=0.4)
    parser.add_argument("--output", default="runs/expectile")
    options = parser.parse_args()
    config = jaxdqn.Config(env="CartPole-v1", total_frames=options.frames, output=options.output)
    loss = partial(expectile_loss, expectile=options.expectile)
    for step in jaxdqn.train(config, loss=loss, returns=clipped_return):
        if step.evaluation is not None:
            print(f"frame {step.progress.frames:,}: mean return {step.evaluation.screening_mean:.1f}")
    print(f"20 fresh episodes: {jaxdqn.load(step.folder).evaluate(episodes=20).mean:.1f}")


if __name__ == "__main__":
    main()
