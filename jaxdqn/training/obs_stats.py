"""The random rollout whose statistics normalise frames. A separate process can play it while this one imports JAX."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import signal
import warnings
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

import gymnasium as gym

from jaxdqn.config import Config
from jaxdqn.envs.gymnasium.building import make_env_fn_of, spec_of_env
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.envs.vector.episodes import random_stacks
from jaxdqn.envs.vector.worker_process import ROLLOUT, exit_if_imported_by_worker
from jaxdqn.observations import DEFAULT_STATS_FRAMES, stats_frames, stats_of
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.signals import defer_ctrl_c

MIN_FRAMES_FOR_PROCESS = 100
"""With fewer frames, a separate process, which takes a second to start, would not be faster."""

TIMEOUT = 120.0
"""Seconds to wait for that process."""


def rollout_stats(env: gym.Env, config: Config) -> ObservationStats:
    """Return the statistics of `stats_frames` images of a random policy.

    Args:
        env: The environment as `make_env_fn` builds it.
        config: The run.

    Returns:
        A mean and a standard deviation for each channel of a stack.

    Raises:
        FloatingPointError: If an observation or a reward is not finite.
        ValueError: If the environment cannot be played.
    """
    seed, obs = spawn_seeds(config.seed, 1, Purpose.STATISTICS)[0], spec_of_env(env, config.frame_stack)
    stacks = random_stacks(env, frames=stats_frames(config, obs), frame_stack=obs.stack, seed=seed)
    return stats_of(stacks, obs)


class RolloutAhead:
    """Runs `rollout_stats` of `config.env` in a separate process, which starts at once.

    Any failure there costs only the head start: `result` returns None, and the caller plays the rollout itself. The
    process imports the script that starts it, which needs `if __name__ == "__main__":`.
    """

    def __init__(self, config: Config) -> None:
        """Start the process, if the run needs statistics of at least `MIN_FRAMES_FOR_PROCESS` frames."""
        exit_if_imported_by_worker()
        self._process: multiprocessing.process.BaseProcess | None = None
        frames = DEFAULT_STATS_FRAMES if config.normalisation_frames is None else config.normalisation_frames
        if not config.pixels or config.loop == "device" or frames < MIN_FRAMES_FOR_PROCESS:
            return
        context = multiprocessing.get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send_stats, args=(sender, config), name=ROLLOUT, daemon=True)
        try:
            resource_tracker.ensure_running()  # starting it with the first process would unblock Ctrl-C again
            with sender, defer_ctrl_c():
                process.start()
        except (OSError, AssertionError):  # no more processes, or this one is not allowed to have children
            self._receiver.close()
        else:
            self._process = process

    def result(self) -> ObservationStats | None:
        """Wait for the statistics and end the process; return None if there are none, and in any second call."""
        try:
            with contextlib.suppress(EOFError, OSError):
                if self._process is not None and self._receiver.poll(TIMEOUT):
                    return self._receiver.recv()
            return None
        finally:
            self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._receiver.close()
            self._process = None


def _send_stats(sender: Connection, config: Config) -> None:
    """Send the statistics, or nothing. Warnings and errors are hidden: the caller's own rollout shows them again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for systems on which a process does not inherit the blocked signal
    warnings.simplefilter("ignore")
    hidden = contextlib.redirect_stderr(io.StringIO())
    with sender, contextlib.suppress(Exception), hidden, contextlib.closing(make_env_fn_of(config)()) as env:
        if stats_frames(config, spec_of_env(env, config.frame_stack)):
            sender.send(rollout_stats(env, config))
