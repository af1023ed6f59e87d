"""The random rollout whose statistics normalise frames; a process of its own can draw it while this one imports JAX."""

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
from jaxdqn.envs.gymnasium.wrappers import make_env_fn, spec_of_env
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.envs.vector.episodes import random_stacks
from jaxdqn.envs.vector.worker_process import ROLLOUT, exit_if_imported_by_worker
from jaxdqn.observations import USUAL_FRAMES, stats_frames, stats_of
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.signals import defer_ctrl_c

WORTH_A_PROCESS = 100
"""Frames from which on a process of its own is sooner done, which takes a second to start."""

TIMEOUT = 120.0
"""Seconds that are waited for that process."""


def rollout_stats(env: gym.Env, config: Config) -> ObservationStats:
    """Statistics of `stats_frames` images of a random policy.

    Args:
        env: The environment as `make_env_fn` builds it.
        config: The run.

    Returns:
        A mean and a deviation for each channel of a stack.

    Raises:
        FloatingPointError: If an observation or a reward is not finite.
        ValueError: If the environment cannot be played.
    """
    seed, obs = spawn_seeds(config.seed, 1, Purpose.STATISTICS)[0], spec_of_env(env, config.frame_stack)
    stacks = random_stacks(env, frames=stats_frames(config, obs), frame_stack=obs.stack, seed=seed)
    return stats_of(stacks, obs)


class RolloutAhead:
    """`rollout_stats` of `config.env` in a process of its own, begun at once.

    Whatever goes wrong there is no more than a lost start: `result` then is None, and who asks plays the rollout. The
    process imports the script that starts it, which needs `if __name__ == "__main__":`.
    """

    def __init__(self, config: Config) -> None:
        """Start the process, where the run needs statistics, and enough frames for them."""
        exit_if_imported_by_worker()
        self._process: multiprocessing.process.BaseProcess | None = None
        frames = USUAL_FRAMES if config.normalisation_frames is None else config.normalisation_frames
        if not config.pixels or config.loop == "device" or frames < WORTH_A_PROCESS:
            return
        context = multiprocessing.get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send_stats, args=(sender, config), name=ROLLOUT, daemon=True)
        try:
            resource_tracker.ensure_running()  # it comes with the first process, and would let Ctrl-C through again
            with sender, defer_ctrl_c():
                process.start()
        except (OSError, AssertionError):  # no process can be had, or this one may have none
            self._receiver.close()
        else:
            self._process = process

    def result(self) -> ObservationStats | None:
        """Wait for the statistics, once, and end the process; None where there are none."""
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
    """Send the statistics, or nothing; what is said on the way is said again by who plays the rollout then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for systems where a process does not inherit that
    warnings.simplefilter("ignore")
    with sender, contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
        build = make_env_fn(config.env, pixels=config.pixels, frame_size=config.frame_size, colour=config.colour)
        with contextlib.closing(build()) as env:
            if stats_frames(config, spec_of_env(env, config.frame_stack)):
                sender.send(rollout_stats(env, config))
