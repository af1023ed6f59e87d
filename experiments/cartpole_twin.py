"""How near our CartPole is to gymnasium's: physics, picture, and whether agents cross from one to the other.

    python3 experiments/cartpole_twin.py [--trajectories 1000] [--states 10000] [--transfer RUN ...]

It prints a line a comparison and leaves `picture.png`, of the state that differs most: gymnasium's frame, ours, and the
difference. With `--transfer` the best and the last agent of runs play 100 episodes each on both.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import numpy as np
from PIL import Image
from shared.command_line import count, positive

import jaxdqn
from jaxdqn.envs.functional.cartpole import MAX_THETA, MAX_X, CartPoleState, cartpole_step, make_cartpole
from jaxdqn.envs.functional.cartpole_rendering import cartpole_frame
from jaxdqn.evaluation.device import make_device_evaluation
from jaxdqn.evaluation.trained_agent import TrainedAgent
from jaxdqn.preprocessing import preprocess_frame

HOLDS = np.array([1.0, 1.66, 18.7, 3.5])
"""A linear policy that holds the pole: it pushes to the right where its product with the state is above 0."""


class Physics(NamedTuple):
    """How trajectories of the two compare.

    Attributes:
        steps: Compared, over all trajectories.
        step_error: Largest difference after one step from the same state, in units in the last place of float32 at the
            scale of what is added.
        drift: Largest difference within a trajectory of random actions, on its own from the first state on.
        ends_apart: Trajectories that ended at another step, or for another reason.
        borderline: Steps within 1e-5 of a limit, where rounding decides.
    """

    steps: int
    step_error: float
    drift: float
    ends_apart: int
    borderline: int


def compare_physics(trajectories: int) -> Physics:
    """Random actions from the same random states, until either ends."""
    env = gym.make("CartPole-v1")
    env.reset(seed=0)
    limit = int(env.spec.max_episode_steps)
    rng = np.random.default_rng(0)
    starts = rng.uniform(-0.05, 0.05, (trajectories, 4)).astype(np.float32)
    # A third are held upright, or none would last until the time limit. These are compared step by step: errors grow
    # e-fold in a quarter of a second, so that after five of them two precisions no longer agree.
    actions = rng.integers(0, 2, (trajectories, limit))
    steered = np.arange(trajectories) % 3 == 0
    one = jax.jit(cartpole_step)
    steps, step_error, drift, apart, borderline = 0, 0.0, 0.0, 0, 0
    scale = np.array([MAX_X, 1.0, MAX_THETA, 1.0])
    for index in range(trajectories):
        env.reset()
        env.unwrapped.state = starts[index].astype(np.float64)
        ours = CartPoleState(*starts[index])
        for step in range(limit):
            before = np.asarray(env.unwrapped.state)
            push = int(before @ HOLDS > 0)
            action = push if steered[index] else int(actions[index, step])
            _, _, terminated, truncated, _ = env.step(action)
            after = np.asarray(env.unwrapped.state)
            near, _ = one(CartPoleState(*before.astype(np.float32)), action)
            ours, fallen = one(CartPoleState(*before.astype(np.float32)) if steered[index] else ours, action)
            rounding = np.finfo(np.float32).eps * np.maximum(np.abs(before), 1.0)
            step_error = max(step_error, float((np.abs(np.asarray(near) - after) / rounding).max()))
            drift = max(drift, float((np.abs(np.asarray(ours) - after) / scale).max()))
            borderline += int(min(abs(abs(after[0]) - MAX_X), abs(abs(after[2]) - MAX_THETA)) < 1e-5)
            steps += 1
            if terminated or bool(fallen) or truncated:
                apart += int(bool(fallen) != terminated)
                break
    env.close()
    return Physics(steps, step_error, drift, apart, borderline)


class Picture(NamedTuple):
    """How frames compare, in grey levels of 255.

    Attributes:
        mean: Mean absolute difference.
        high: 99.9th percentile of it.
        largest: Its maximum.
        worst: Gymnasium's frame, ours, and their difference times 16 `[64, 3*64]` uint8, of the state where it is.
        state: That state's `x` and `theta`.
    """

    mean: float
    high: float
    largest: int
    worst: np.ndarray
    state: tuple[float, float]


def compare_pictures(states: int) -> Picture:
    """Random states over all that CartPole shows, its final observations included."""
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
    return Picture(float(difference.mean()), high, int(difference.max()), worst, (float(x[at]), float(theta[at])))


def transfer(agent: TrainedAgent, episodes: int) -> dict[str, Any]:
    """Returns of an agent on gymnasium's environment and on ours.

    Raises:
        ValueError: If it was trained on another.
    """
    if agent.config.env != "CartPole-v1":
        raise ValueError(f"--transfer: the agent was trained on {agent.config.env} and not on CartPole-v1")
    env = make_cartpole(pixels=agent.config.pixels, frame_size=agent.config.frame_size)
    play = make_device_evaluation(
        env, lambda _, obs: agent.q_values(obs), episodes=episodes, frame_stack=agent.frame_stack
    )
    ours = np.asarray(jaxdqn.jit(play)(None, jax.random.key(2**31)))
    theirs = agent.evaluate(episodes, seed=0)
    return {
        "gymnasium": theirs.mean,
        "gymnasium_min": theirs.min,
        "ours": float(ours.mean()),
        "ours_min": float(ours.min()),
    }


def main() -> None:
    """Parse the command line, compare, print."""
    parser = argparse.ArgumentParser(description="How near our CartPole is to gymnasium's.")
    parser.add_argument("--trajectories", type=count, default=1_000, help="0 leaves physics out")
    parser.add_argument("--states", type=count, default=10_000, help="0 leaves the picture out")
    parser.add_argument("--transfer", nargs="*", default=[], metavar="RUN", help="runs whose agents play on both")
    parser.add_argument("--episodes", type=positive, default=100, help="of each agent on each")
    parser.add_argument("--output", type=Path, default=Path("runs/cartpole-twin"))
    options = parser.parse_args()
    if options.trajectories:
        print("physics  " + in_words(compare_physics(options.trajectories)._asdict()))
    if options.states:
        found = compare_pictures(options.states)
        options.output.mkdir(parents=True, exist_ok=True)
        worst = Image.fromarray(found.worst).resize((3 * 320, 320), Image.Resampling.NEAREST)
        worst.save(options.output / "picture.png")
        largest = f"largest {found.largest} of 255, at {found.state}"
        print(f"picture  mean {found.mean:.4f}  99.9 % {found.high:g}  {largest}")
    for run in options.transfer:
        for which in ("best", "last"):
            try:
                scores = transfer(jaxdqn.load(run, which), options.episodes)
            except ValueError as error:
                parser.error(str(error))
            print(f"{run} {which}  {in_words(scores)}", flush=True)


def in_words(figures: dict[str, Any]) -> str:
    """Names and figures, in one line."""
    return "  ".join(f"{name} {value:g}" for name, value in figures.items())


if __name__ == "__main__":
    main()
