"""An episode as a GIF: the environment, with the agent's action values beside it."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from jaxdqn.envs.gymnasium.spaces import picture_bytes
from jaxdqn.envs.gymnasium.wrappers import name_of
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.envs.vector.episodes import Episode, EpisodeStepper
from jaxdqn.evaluation.trained_agent import TrainedAgent
from jaxdqn.exploration import allowed_values
from jaxdqn.reporting.gif_panel import STEPS, Panel
from jaxdqn.storage.atomic import atomic_write

FRAME_MS = 40  # 25 pictures a second: viewers slow down anything below 20 ms


def action_names(env: gym.Env, num_actions: int) -> list[str]:
    """Return the names of an environment's actions (`get_action_meanings`, as in Atari), or their numbers.

    Args:
        env: The environment.
        num_actions: Number of names that are needed. Numbers are used if the environment gives another number of names,
            an empty name, or the same name twice.
    """
    numbers = [str(action) for action in range(num_actions)]
    unwrapped: Any = env.unwrapped
    try:
        names = [" ".join(str(name).split()) for name in unwrapped.get_action_meanings()]
    except Exception:  # the method is not part of gymnasium's interface: it may raise anything
        return numbers
    return names if len(names) == num_actions and all(names) and len(set(names)) == num_actions else numbers


def record_gif(agent: TrainedAgent, output: Path, *, seed: int = 0, every: int = 2, longest: int = 1000) -> float:
    """Draw an episode and return its raw return. See `draw_episode`."""
    return draw_episode(agent, output, seed=seed, every=every, longest=longest).raw_return


def draw_episode(agent: TrainedAgent, output: Path, *, seed: int = 0, every: int = 2, longest: int = 1000) -> Episode:
    """Play one greedy episode on the evaluation environment and draw it, with the action values beside it.

    Args:
        agent: The trained agent.
        output: The GIF to write.
        seed: Seed from which the episode's seed is spawned.
        every: Steps between two pictures.
        longest: Steps after which the episode is cut.

    Returns:
        The episode; a `CutEpisode` if it was cut.

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
            duration=FRAME_MS,
            loop=0,
            optimize=False,
        )
    return episode


def _play(env: gym.Env, agent: TrainedAgent, seed: int, every: int, longest: int) -> tuple[list[Image.Image], Episode]:
    where = " of the drawn episode"
    stepper = EpisodeStepper([env], [seed], max_steps=longest, frame_stack=agent.frame_stack, where=where)
    space: Any = env.action_space  # discrete: see `make_env_fn`
    panel = Panel(action_names(env, int(space.n)))
    pictures, recent, step = [], deque[np.ndarray](maxlen=STEPS), 0
    while True:
        values = np.asarray(agent.q_values(stepper.cursor.stack))[0]
        recent.append(values)
        action, total = best_action(values, stepper.cursor.mask), float(stepper.cursor.returns[0])
        if step % every == 0:
            pictures.append(panel.draw(_scene(env), np.stack(recent), action, step, total))
        _, ended = stepper.step([action], frames=step)
        step += 1
        for episode in stepper.finished(ended).values():
            pictures.append(panel.draw(_scene(env), np.stack(recent), action, episode.length, episode.raw_return))
            return pictures, episode


def best_action(values: Float[np.ndarray, " A"], mask: Bool[np.ndarray, "1 A"] | None) -> int:
    """Return the best action among those that a mask allows."""
    return int(values.argmax() if mask is None else allowed_values(jnp.asarray(values), jnp.asarray(mask[0])).argmax())


def _scene(env: gym.Env) -> np.ndarray:
    """Return the picture that the environment renders, `[H, W, 3]` uint8."""
    picture = picture_bytes(env.render(), name_of(env))
    return np.broadcast_to(picture if picture.ndim == 3 else picture[..., None], (*picture.shape[:2], 3))
