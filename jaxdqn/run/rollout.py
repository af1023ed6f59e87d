"""The random rollout whose statistics normalise frames; a process of its own can draw it while this one imports JAX."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import TracebackType

import gymnasium as gym

from jaxdqn.config import Config
from jaxdqn.envs.pixels import make_env_fn, name_of
from jaxdqn.envs.vector import Purpose, random_stacks, spawn_seeds
from jaxdqn.preprocessing import ObservationStats, observation_stats

WORTH_A_PROCESS = 100
"""Frames from which on a process of its own is sooner done, which takes a second to start."""


def rollout_stats(env: gym.Env, config: Config) -> ObservationStats:
    """Statistics of `config.normalisation_frames` frames of a random policy.

    Args:
        env: The environment as `make_env_fn` builds it.
        config: The run.

    Raises:
        ValueError: If the environment cannot be played.
    """
    seed = spawn_seeds(config.seed, 1, Purpose.STATISTICS)[0]
    try:
        stacks = random_stacks(env, frames=config.normalisation_frames, frame_stack=config.frame_stack, seed=seed)
    except gym.error.Error as error:  # what drawing needs is missed only when it draws
        raise ValueError(f"env {name_of(env)} cannot be used: {error}") from error
    return observation_stats(stacks)


class RolloutAhead:
    """`rollout_stats` of `config.env` in a process of its own, begun at once.

    It imports the script that starts it, which needs `if __name__ == "__main__":`.
    """

    def __init__(self, config: Config) -> None:
        """Start the process, where the run needs statistics and enough frames for them."""
        self._process = None
        if not config.pixels or config.normalisation_frames < WORTH_A_PROCESS:
            return
        context = multiprocessing.get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_send_stats, args=(sender, config), name="rollout", daemon=True)
        with sender, _deaf_to_ctrl_c():
            self._process.start()

    def result(self) -> ObservationStats | None:
        """Wait for the statistics; None where there is no process, or it met an error, which is met here again."""
        if self._process is not None:
            with contextlib.suppress(EOFError, OSError):
                return self._receiver.recv()
        return None

    def __enter__(self) -> RolloutAhead:
        """The rollout itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._receiver.close()


def _send_stats(sender: Connection, config: Config) -> None:
    """Send the statistics, or nothing: then the process that waits plays the rollout itself and reports its error."""
    with (
        sender,
        contextlib.suppress(Exception),
        contextlib.closing(make_env_fn(config.env, pixels=True, frame_size=config.frame_size)()) as env,
    ):
        sender.send(rollout_stats(env, config))


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started within inherit that SIGINT, which a terminal sends to all of a group, does not reach them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
