"""Compare our CartPole with gymnasium's: physics, pictures, and the returns of the same agents on both.

    python3 experiments/cartpole_twin.py [--trajectories 1000] [--states 10000] [--transfer RUN ...]

Arguments: `--trajectories` for the physics, `--states` for the pictures, `--output` for the folder. With `--transfer`
the best and the last agent of each RUN play `--episodes` (100) on both. It prints the comparisons and writes
`cartpole_twin.csv`, `cartpole_transfer.csv` and `cartpole_twin.png`, the state that differs most: gymnasium's frame,
ours, and the difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import jax
import numpy as np
from PIL import Image
from shared.command_line import count, positive
from shared.seeds import markdown, write_table

import jaxdqn
from jaxdqn.envs.functional.cartpole import MAX_THETA, MAX_X, CartPoleState, cartpole_step, make_cartpole
from jaxdqn.envs.functional.cartpole_rendering import cartpole_frame
from jaxdqn.evaluation.device_evaluation import make_device_evaluation
from jaxdqn.evaluation.trained_agent import TrainedAgent
from jaxdqn.preprocessing import preprocess_frame
from jaxdqn.storage.atomic import atomic_write

BALANCING_WEIGHTS = np.array([1.0, 1.66, 18.7, 3.5])
"""A linear policy that balances the pole: it pushes right if the dot product with the state is above 0."""


class Physics(NamedTuple):
    """The comparison of trajectories.

    Attributes:
        steps: Steps that were compared, over all trajectories.
        step_error: Largest difference after one step from the same state, in units in the last place of float32 at the
            scale of the state, at least 1.
        drift: Largest difference within a trajectory of random actions that starts from the same state, relative to
            the limits of position and angle.
        different_ends: Trajectories that ended at different steps, or for different reasons.
        borderline: Steps within 1e-5 of a limit, where rounding decides.
    """

    steps: int
    step_error: float
    drift: float
    different_ends: int
    borderline: int


def compare_physics(trajectories: int) -> Physics:
    """Step both from the same random states with the same actions, until one of them ends."""
    env = gym.make("CartPole-v1")
    env.reset(seed=0)
    limit = int(env.spec.max_episode_steps)
    rng = np.random.default_rng(0)
    starts = rng.uniform(-0.05, 0.05, (trajectories, 4)).astype(np.float32)
    # In a third of the trajectories a policy balances the pole: with random actions none lasts until the time limit.
    # These are compared step by step, because errors grow e-fold in a quarter of a second: after five of these quarters
    # the two precisions no longer agree.
    actions = rng.integers(0, 2, (trajectories, limit))
    balanced = np.arange(trajectories) % 3 == 0
    our_step = jax.jit(cartpole_step)
    steps, step_error, drift, different_ends, borderline = 0, 0.0, 0.0, 0, 0
    scale = np.array([MAX_X, 1.0, MAX_THETA, 1.0])
    for index in range(trajectories):
        env.reset()
        env.unwrapped.state = starts[index].astype(np.float64)
        ours = CartPoleState(*starts[index])
        for step in range(limit):
            before = np.asarray(env.unwrapped.state)
            push = int(before @ BALANCING_WEIGHTS > 0)
            action = push if balanced[index] else int(actions[index, step])
            _, _, terminated, truncated, _ = env.step(action)
            after = np.asarray(env.unwrapped.state)
            same_start = CartPoleState(*before.astype(np.float32))
            near, _ = our_step(same_start, action)
            ours, fallen = our_step(same_start if balanced[index] else ours, action)
            rounding = np.finfo(np.float32).eps * np.maximum(np.abs(before), 1.0)
            step_error = max(step_error, float((np.abs(np.asarray(near) - after) / rounding).max()))
            drift = max(drift, float((np.abs(np.asarray(ours) - after) / scale).max()))
            borderline += int(min(abs(abs(after[0]) - MAX_X), abs(abs(after[2]) - MAX_THETA)) < 1e-5)
            steps += 1
            if terminated or bool(fallen) or truncated:
                different_ends += int(bool(fallen) != terminated)
                break
    env.close()
    return Physics(steps, step_error, drift, different_ends, borderline)


class Picture(NamedTuple):
    """The comparison of frames, in grey levels from 0 to 255.

    Attributes:
        mean: Mean absolute difference.
        high: 99.9th percentile of the absolute difference.
        largest: Maximum of the absolute difference.
        worst: Gymnasium's frame, ours, and 16 times their difference `[64, 3*64]` uint8, for the state with `largest`.
    """

    mean: float
    high: float
    largest: int
    worst: np.ndarray


def compare_pictures(states: int) -> Picture:
    """Compare frames of random states over the whole range that CartPole shows, final observations included."""
    rng = np.random.default_rng(0)
    x, theta = (rng.uniform(-1.04 * limit, 1.04 * limit, states).astype(np.float32) for limit in (MAX_X, MAX_THETA))
    ours = np.asarray(jax.jit(jax.vmap(cartpole_frame))(x, theta))
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=0)
    theirs = np.empty_like(ours)
    for index in range(states):
        env.unwrapped.state = np.array([x[index], 0, theta[index], 0], np.float64)
        theirs[index] = preprocess_frame(env.render())
    env.close()
    difference = np.abs(ours.astype(np.int16) - theirs)
    at = int(difference.reshape(states, -1).max(axis=1).argmax())
    worst = np.hstack([theirs[at], ours[at], np.minimum(16 * difference[at], 255)]).astype(np.uint8)
    high = float(np.quantile(difference, 0.999))
    return Picture(float(difference.mean()), high, int(difference.max()), worst)


def check_cartpole(agent: TrainedAgent) -> None:
    """Raise `ValueError` if an agent was trained on another environment."""
    if agent.config.env != "CartPole-v1":
        raise ValueError(f"--transfer: the agent was trained on {agent.config.env} and not on CartPole-v1")


def transfer(agent: TrainedAgent, episodes: int) -> dict[str, str]:
    """Return the mean and the lowest return of an agent on gymnasium's environment and on ours."""
    env = make_cartpole(pixels=agent.config.pixels, frame_size=agent.config.frame_size)
    play = make_device_evaluation(
        env, lambda _, obs: agent.q_values(obs), episodes=episodes, frame_stack=agent.frame_stack
    )
    ours = np.asarray(jaxdqn.jit(play)(None, jax.random.key(2**31)))
    theirs = agent.evaluate(episodes, seed=0)
    return {
        "on gymnasium's, drawn by pygame": f"{theirs.mean:.1f}, at least {theirs.min:g}",
        "on ours": f"{ours.mean():.1f}, at least {ours.min():g}",
    }


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line, compare, print."""
    parser = argparse.ArgumentParser(description="Compare our CartPole with gymnasium's.")
    parser.add_argument("--trajectories", type=count, default=1_000, help="0 skips the physics")
    parser.add_argument("--states", type=count, default=10_000, help="0 skips the pictures")
    parser.add_argument("--transfer", nargs="*", default=[], metavar="RUN", help="runs whose agents play on both")
    parser.add_argument("--episodes", type=positive, default=100, help="episodes of each agent on each environment")
    parser.add_argument("--output", type=Path, default=Path("runs/cartpole-twin"))
    options = parser.parse_args(args)
    try:
        agents = [(which, jaxdqn.load(run, which)) for run in options.transfer for which in ("best", "last")]
        for _, agent in agents:
            check_cartpole(agent)
    except ValueError as error:
        parser.error(str(error))
    figures: list[dict[str, str]] = []
    if options.trajectories:
        physics = compare_physics(options.trajectories)._asdict()
        figures += [{"what": f"physics: {name}", "value": f"{value:g}"} for name, value in physics.items()]
    if options.states:
        found = compare_pictures(options.states)
        worst = Image.fromarray(found.worst).resize((3 * 320, 320), Image.Resampling.NEAREST)
        with atomic_write(options.output / "cartpole_twin.png") as partial:
            worst.save(partial, format="PNG")
        for name in ("mean", "high", "largest"):
            figures.append({"what": f"picture: {name}", "value": f"{getattr(found, name):.3g}"})
    if figures:
        write_table(options.output / "cartpole_twin.csv", figures)
        print(markdown(figures))
    rows = [
        {"trained with": f"--loop {agent.config.loop}", "agent": which, **transfer(agent, options.episodes)}
        for which, agent in agents
    ]
    if rows:
        write_table(options.output / "cartpole_transfer.csv", rows)
        print(markdown(rows))


if __name__ == "__main__":
    main()
