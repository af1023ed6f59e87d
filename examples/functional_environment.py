"""An environment in JAX, and eight seeds on the device in one program: `python3 examples/functional_environment.py`.

It is Catch from `own_environment.py` as pure functions of a state.
"""

import argparse
from typing import NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

import jaxdqn


class CatchState(NamedTuple):
    """Row and column of the ball, and column of the paddle; int32."""

    row: jax.Array
    column: jax.Array
    paddle: jax.Array


def observe(state: CatchState) -> jax.Array:
    """Return the grid `[10, 5, 2]` uint8, a channel for the ball and one for the paddle."""
    return jnp.zeros((10, 5, 2), jnp.uint8).at[state.row, state.column, 0].set(1).at[9, state.paddle, 1].set(1)


def reset(key: jax.Array) -> tuple[CatchState, jax.Array]:
    """Return a state with the ball in the top row, and its observation."""
    state = CatchState(jnp.int32(0), jax.random.randint(key, (), 0, 5), jnp.int32(2))
    return state, observe(state)


def step(key: jax.Array, state: CatchState, action: jax.Array) -> tuple[CatchState, *tuple[jax.Array, ...]]:
    """Return the next state, its observation, the reward, and the two flags: terminated and truncated."""
    state = CatchState(state.row + 1, state.column, jnp.clip(state.paddle + action - 1, 0, 4))
    terminated = state.row == 9
    reward = jnp.where(terminated, jnp.where(state.paddle == state.column, 1.0, -1.0), 0.0)
    return state, observe(state), reward, terminated, jnp.bool_(False)


CATCH = jaxdqn.FunctionalEnv(reset, step, gym.spaces.Box(0, 1, (10, 5, 2), np.uint8), gym.spaces.Discrete(3), observe)


def main() -> None:
    """Train eight seeds at once and print the mean return of ten greedy episodes of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    config = jaxdqn.Config(total_frames=parser.parse_args().frames, warmup_frames=1_000)
    run = jaxdqn.make_device_run(config, env=CATCH, num_seeds=8)
    states = jax.vmap(run.init)(jax.random.split(jax.random.key(0), 8))
    states, _ = jaxdqn.jit(jax.vmap(run.train), donate_argnums=0)(states)
    play = jaxdqn.make_device_evaluation(run.env, run.agent.q_values, episodes=10, frame_stack=run.obs.stack)
    print(jaxdqn.jit(jax.vmap(play, (0, None)))(states.agent.learner.target_params, jax.random.key(1)).mean(axis=1))


if __name__ == "__main__":
    main()
