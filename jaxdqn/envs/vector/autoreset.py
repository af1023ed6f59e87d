"""Convert vector environments in gymnasium's other autoreset modes to `NEXT_STEP` mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode


def next_step_autoreset(envs: gym.vector.VectorEnv) -> gym.vector.VectorEnv:
    """Return the environments in `NEXT_STEP` mode, wrapped if they have another mode.

    Raises:
        ValueError: If their metadata do not name one of gymnasium's modes.
    """
    mode = envs.metadata.get("autoreset_mode")
    if mode == AutoresetMode.NEXT_STEP:
        return envs
    if mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        return NextStepAutoreset(envs)
    raise ValueError(
        f"autoreset_mode {mode} in the metadata of the vector environment is unknown: use one of gymnasium.vector's "
        "AutoresetMode"
    )


class NextStepAutoreset(gym.vector.VectorWrapper):
    """Return each episode's true final observation in one step, and the next episode's first one in the next step.

    The inner environments all step together. So while the final observation of one is shown, it also takes a step, in
    an episode that is never shown. It is reset again afterwards by `reset(options={"reset_mask": ...})`, which the
    inner environments must support. No step of a shown episode is lost, and none is shown twice.
    """

    def __init__(self, env: gym.vector.VectorEnv) -> None:
        """Wrap environments in `SAME_STEP` or `DISABLED` mode."""
        super().__init__(env)
        self._same_step = env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self._ended = np.zeros(env.num_envs, bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset every environment."""
        self._ended[:] = False
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every environment; those whose episode has ended ignore the action and are reset."""
        shown = self._ended
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        obs = np.array(obs)
        ended_unseen = (terminated | truncated) & shown
        ended = (terminated | truncated) & ~shown
        if self._same_step:
            for index in np.flatnonzero(ended):
                obs[index] = infos["final_obs"][index]
        reset = shown if self._same_step else shown | ended | ended_unseen
        masks = _masks_of(infos, np.flatnonzero(ended) if self._same_step else ())
        if reset.any():
            first, first_infos = self.env.reset(options={"reset_mask": np.array(reset)})
            obs[shown] = first[shown]
            if "action_mask" in first_infos:
                masks = np.ones_like(first_infos["action_mask"]) if masks is None else masks
                masks[shown] = first_infos["action_mask"][shown]
            if "lives" in infos and "lives" in first_infos:  # not those of the step that is never shown
                infos = {**infos, "lives": np.where(shown, first_infos["lives"], infos["lives"])}
        if masks is not None:
            gave = infos.get("_action_mask", np.full(self.num_envs, "action_mask" in infos))
            infos = {**infos, "action_mask": masks, "_action_mask": gave | shown}
        self._ended = ended
        return obs, np.where(shown, 0.0, reward), terminated & ~shown, truncated & ~shown, infos


def _masks_of(infos: Any, reset_already: Sequence[int] | np.ndarray) -> np.ndarray | None:
    """Return the masks of allowed actions at the shown observations; None if there are none.

    Environments that have already reset themselves show their final observation, whose mask is in `final_info`. Without
    it every action counts as allowed.
    """
    if not isinstance(infos, dict) or "action_mask" not in infos:
        return None
    masks, final = np.array(infos["action_mask"]), infos.get("final_info", {}).get("action_mask")
    for index in reset_already:
        masks[index] = True if final is None else final[index]
    return masks
