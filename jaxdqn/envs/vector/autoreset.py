"""Vector environments of gymnasium's other autoreset modes, as if they were in `NEXT_STEP` mode."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode


def next_step_autoreset(envs: gym.vector.VectorEnv) -> gym.vector.VectorEnv:
    """The same environments in `NEXT_STEP` mode, wrapped where they are in another.

    Raises:
        ValueError: If they do not say in which.
    """
    mode = envs.metadata.get("autoreset_mode")
    if mode == AutoresetMode.NEXT_STEP:
        return envs
    if mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        return NextStepAutoreset(envs)
    raise ValueError(f"autoreset_mode {mode} in the metadata of the vector environment is none of gymnasium's modes")


class NextStepAutoreset(gym.vector.VectorWrapper):
    """Gives each episode's true final observation in one step, and the first one of the next episode in the next.

    The environments beneath all step at once, so one that is shown at its final observation steps, too, in an episode
    that nobody sees: it is reset again afterwards, by `reset(options={"reset_mask": ...})`, which they must have. No
    step of an episode that is shown is lost, and none is shown twice.
    """

    def __init__(self, env: gym.vector.VectorEnv) -> None:
        """Wrap environments in `SAME_STEP` or `DISABLED` mode."""
        super().__init__(env)
        self._same_step = env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self._ended = np.zeros(env.num_envs, bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset all."""
        self._ended[:] = False
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all; those that have ended are reset, whatever the action."""
        shown = self._ended
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        obs = np.array(obs)
        unseen_end = (terminated | truncated) & shown
        ended = (terminated | truncated) & ~shown
        if self._same_step:
            for index in np.flatnonzero(ended):
                obs[index] = infos["final_obs"][index]
        reset = shown if self._same_step else shown | ended | unseen_end
        if reset.any():
            first, _ = self.env.reset(options={"reset_mask": np.array(reset)})
            obs[shown] = first[shown]
        self._ended = ended
        return obs, np.where(shown, 0.0, reward), terminated & ~shown, truncated & ~shown, infos
