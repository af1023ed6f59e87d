"""Atari games of ale-py, on its C++ threads: single ones for evaluation and pictures, many together for training.

Both are ale-py's `AtariVectorEnv`, so that training and evaluation see the same frames: grey (or in colours), the
maximum of the last two of the frames that an action is repeated for, resized by areas. They equal those of gymnasium's
`AtariPreprocessing`, pixel by pixel. ale-py's licence is GPL-2.0; its wheel contains the games.

ale-py would also clip rewards, stack frames and end episodes at a lost life. Here rows do that, so that reported
returns are those of whole games, and replay stores each frame once.

References:
    Machado et al., Revisiting the Arcade Learning Environment (2018), on sticky actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np

from jaxdqn.config_fields import is_atari

MAX_FRAMES = 108_000
"""Frames of the game after which an episode is truncated: half an hour."""


class AtariGames(gym.vector.VectorEnv):
    """Several copies of a game, stepped on C++ threads, in `NEXT_STEP` autoreset mode.

    `info["lives"]` has the lives that are left `[N]`. Games cannot be saved.
    """

    def __init__(
        self,
        env: str,
        num_envs: int,
        *,
        frame_size: int | tuple[int, int] = 84,
        colour: bool = False,
        frame_skip: int = 4,
        sticky_actions: float = 0.25,
        noop_max: int = 0,
        fire_reset: bool = False,
    ) -> None:
        """Start the games. The defaults are those of gymnasium's ids, such as `ALE/Pong-v5`.

        Args:
            env: Gymnasium id, such as `ALE/Pong-v5`; see `is_atari`.
            num_envs: Number of copies `N`.
            frame_size: Height and width of frames, or both.
            colour: Whether frames keep their colours.
            frame_skip: Frames of the game that an action is repeated for.
            sticky_actions: Probability that a frame repeats the previous action in place of the newest.
            noop_max: Highest number of single frames without an action before an episode; the number is random, from 0.
            fire_reset: Whether an episode starts with a frame of FIRE, in games with this action.

        Raises:
            ValueError: If `num_envs` is below 1, ale-py is not installed, or it has no such game.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs {num_envs} must be at least 1")
        height, width = (frame_size, frame_size) if isinstance(frame_size, int) else frame_size
        name = _rom_of(env)
        from ale_py.vector_env import AtariVectorEnv

        if noop_max:  # ale-py's number is exclusive, and includes the frame of FIRE
            noop_max += 2 if fire_reset and "FIRE" in _action_names(env) else 1
        self._games = AtariVectorEnv(
            name,
            num_envs,
            max_num_frames_per_episode=MAX_FRAMES,
            repeat_action_probability=sticky_actions,
            img_height=height,
            img_width=width,
            grayscale=not colour,
            stack_num=1,
            frameskip=frame_skip,
            noop_max=noop_max,
            life_loss_info=False,
            reward_clipping=False,
            use_fire_reset=fire_reset,
        )
        self.num_envs, self.metadata = num_envs, dict(self._games.metadata)
        shape = (height, width, 3) if colour else (height, width)
        self.single_observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        self.single_action_space = self._games.single_action_space
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the games, all or those of `options["reset_mask"]`.

        Args:
            seed: One for each, or one from which they count; None: the games' generators continue.
            options: See `AtariVectorEnv.reset`.
        """
        if isinstance(seed, Sequence | np.ndarray):
            seed = np.asarray(seed, np.int64) % 2**31
        elif seed is not None:
            seed = int(seed) % (2**31 - self.num_envs)
        result: Any = self._games.reset(seed=seed, options=options)
        return result[0][:, 0], result[1]

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one step in each game.

        Raises:
            ValueError: If there is no such action.
        """
        count = int(self.single_action_space.n)  # type: ignore[attr-defined]  # Discrete
        if ((np.asarray(actions) < 0) | (np.asarray(actions) >= count)).any():  # ale-py would never return
            raise ValueError(f"actions {np.asarray(actions).tolist()} must be from 0 to {count - 1}")
        obs, reward, terminated, truncated, info = self._games.step(np.asarray(actions))
        return obs[:, 0], reward, terminated, truncated, info

    def close_extras(self, **options: Any) -> None:
        """End the threads; the games cannot be used any more."""
        del options
        del self._games


class AtariGame(gym.Env):
    """One game, with the options of `AtariGames`."""

    def __init__(self, env: str, render_mode: str | None = None, **options: Any) -> None:
        """Start the game.

        Args:
            env: Gymnasium id, such as `ALE/Pong-v5`.
            render_mode: `"rgb_array"`: a second copy of the game gets the same actions and draws the screen.
            options: See `AtariGames`.

        Raises:
            ValueError: If ale-py is not installed, or has no such game or render mode.
        """
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} is not supported by {env}: use 'rgb_array' or None")
        self._games = [AtariGames(env, 1, **options)]
        if render_mode is not None:
            screen = {**options, "colour": True, "frame_size": _console(env).getScreenDims()}
            self._games.append(AtariGames(env, 1, **screen))
        self._screen: np.ndarray | None = None
        self.spec = gym.spec(env)
        self._env = env
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 60 // options.get("frame_skip", 4) or 1}
        self.observation_space = self._games[0].single_observation_space
        self.action_space = self._games[0].single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the same seed gives the same episode for the same actions. There are no options."""
        super().reset(seed=seed)
        own_seed = [int(self.np_random.integers(2**31))]
        results = [games.reset(seed=own_seed) for games in self._games]
        self._screen = results[-1][0][0]
        obs, info = results[0]
        return obs[0], {"lives": int(info["lives"][0])}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step. See `gymnasium.Env.step`.

        Raises:
            gymnasium.error.ResetNeeded: Before the first `reset`.
            ValueError: If there is no such action.
        """
        if self._screen is None:
            raise gym.error.ResetNeeded("call reset before step")
        results = [games.step(np.array([action])) for games in self._games]
        self._screen = results[-1][0][0]
        obs, reward, terminated, truncated, info = results[0]
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {"lives": int(info["lives"][0])}

    def render(self) -> Any:
        """Return the screen `[H, W, 3]` uint8; None if there is no render mode."""
        return None if self.render_mode is None else self._screen

    def get_action_meanings(self) -> list[str]:
        """Return the name of each action, such as `FIRE`."""
        return _action_names(self._env)

    def close(self) -> None:
        """End the threads; the game cannot be used any more."""
        for games in self._games:
            games.close()


class AtariEnvFn:
    """Build a game by `build`; `make_vector_env` takes several from `make_many`, which share their threads."""

    def __init__(self, build: Callable[[], gym.Env], env: str, options: Mapping[str, Any]) -> None:
        """Store what builds one game, its id and the options of `AtariGames`."""
        self._build, self._env, self._options = build, env, dict(options)

    def __call__(self) -> gym.Env:
        """Return a new game."""
        return self._build()

    def make_many(self, num_envs: int) -> AtariGames:
        """Return several new games."""
        return AtariGames(self._env, num_envs, **self._options)


def _rom_of(env: str) -> str:
    """Return ale-py's name of the game of an id."""
    if not is_atari(env):
        raise ValueError(f"env {env!r} is not an Atari game: use an id such as ALE/Pong-v5")
    try:
        import ale_py
    except ModuleNotFoundError as error:
        raise ValueError("ale_py is not installed: python3 -m pip install ale-py") from error

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gym.register_envs(ale_py)
    try:
        return gym.spec(env).kwargs["game"]
    except gym.error.Error as error:
        raise ValueError(" ".join(str(error).split())) from error


@lru_cache
def _console(env: str) -> Any:
    """Return ale-py's interface to a game, for questions about it."""
    import ale_py

    rom: Any = ale_py.roms.get_rom_path(_rom_of(env))
    console = ale_py.ALEInterface()
    console.loadROM(rom)
    return console


def _action_names(env: str) -> list[str]:
    return [action.name for action in _console(env).getMinimalActionSet()]
