"""An episode as a GIF: the environment, and beside it the values that the agent gives its actions."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from jaxdqn.envs.gymnasium.spaces import picture_bytes
from jaxdqn.envs.gymnasium.wrappers import name_of
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.envs.vector.episodes import Episode, EpisodeStepper
from jaxdqn.evaluation.trained_agent import TrainedAgent
from jaxdqn.reporting.gif_panel import STEPS, Panel
from jaxdqn.storage.atomic import atomic_write

MS_A_FRAME = 40  # 25 pictures a second: viewers slow down anything below 20 ms


def action_names(env: gym.Env, num_actions: int) -> list[str]:
    """Return the names that an environment gives its actions (`get_action_meanings`, as Atari's do), or their numbers.

    Args:
        env: The environment.
        num_actions: How many names are needed; numbers are taken if it gives others, or two alike.
    """
    numbers = [str(action) for action in range(num_actions)]
    own: Any = env.unwrapped
    try:
        names = [" ".join(str(name).split()) for name in own.get_action_meanings()]
    except Exception:  # the method is not part of gymnasium's interface: an environment may do anything in it
        return numbers
    return names if len(names) == num_actions and all(names) and len(set(names)) == num_actions else numbers


def record_gif(agent: TrainedAgent, output: Path, *, seed: int = 0, every: int = 2, longest: int = 1000) -> float:
    """Draw an episode, see `draw_episode`, and return its raw return."""
    return draw_episode(agent, output, seed=seed, every=every, longest=longest).raw_return


def draw_episode(agent: TrainedAgent, output: Path, *, seed: int = 0, every: int = 2, longest: int = 1000) -> Episode:
    """Play one greedy episode of the environment of evaluations and draw it with the action values beside.

    Args:
        agent: The trained agent.
        output: The GIF.
        seed: The episode's own seed is spawned from it.
        every: Steps to a picture.
        longest: Steps after which the episode is cut.

    Returns:
        The episode; a `CutEpisode` where it was cut.

    Raises:
        FloatingPointError: If an observation or a reward is not finite.
        ValueError: If the environment cannot draw itself.
    """
    env = agent.build_env(render=True)
    try:
        pictures, episode = _play(env, agent, spawn_seeds(seed, 1, Purpose.PICTURE)[0], every, longest)
    finally:
        env.close()
    with atomic_write(output) as partial:
        pictures[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=MS_A_FRAME,
            loop=0,
            optimize=False,
        )
    return episode


def _play(env: gym.Env, agent: TrainedAgent, seed: int, every: int, longest: int) -> tuple[list[Image.Image], Episode]:
    where = " of the episode that is drawn"
    stepper = EpisodeStepper([env], [seed], max_steps=longest, frame_stack=agent.frame_stack, where=where)
    space: Any = env.action_space  # discrete: see `make_env_fn`
    panel = Panel(action_names(env, int(space.n)))
    pictures, recent, step = [], deque[np.ndarray](maxlen=STEPS), 0
    while True:
        values = np.asarray(agent.q_values(stepper.cursor.stack))[0]
        recent.append(values)
        action, total = int(values.argmax()), float(stepper.cursor.returns[0])
        if step % every == 0:
            pictures.append(panel.draw(_scene(env), np.stack(recent), action, step, total))
        _, ended = stepper.step([action], frames=step)
        step += 1
        for episode in stepper.finished(ended).values():
            pictures.append(panel.draw(_scene(env), np.stack(recent), action, episode.length, episode.raw_return))
            return pictures, episode


def _scene(env: gym.Env) -> np.ndarray:
    """Return what the environment draws, `[H, W, 3]` uint8."""
    picture = picture_bytes(env.render(), name_of(env))
    return np.broadcast_to(picture if picture.ndim == 3 else picture[..., None], (*picture.shape[:2], 3))
