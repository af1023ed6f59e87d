"""The configuration of a run, in one frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxdqn.config_checks import check_config, check_split
from jaxdqn.config_fields import ATARI_OPTIONS, AlgorithmFields, EnvFields, is_atari, plain_id

RENAMED_NETWORK = ("seed", "torchrl")
"""The former name of a network, which still works, and its current name."""


@dataclass(frozen=True)
class Config(AlgorithmFields, EnvFields):
    """Configuration of one run; each field is a flag of `jaxdqn train`.

    The defaults assume nothing about the environment. Settings tuned for one environment are presets
    (`jaxdqn.PRESETS`).
    """

    total_frames: int = 100_000
    """Rows to collect, over all environments; rounded up to a whole number of collected batches."""
    num_envs: int = 8
    """Number of environments, stepped in lockstep."""
    num_devices: int = 1
    """Devices of each process; environments, replay and batches are split over them, and gradients are averaged."""
    loop: Literal["host", "device"] = "host"
    """host: step Gymnasium environments; device: step functional environments, in one program with the learner."""
    collector: Literal["sync", "async"] = "sync"
    """sync: step environments in this process, between updates; async: in worker processes, during updates."""
    frames_per_batch: int = 32
    """Rows to collect between two rounds of updates, over all environments."""
    batch_size: int = 64
    """Transitions per update."""
    updates_per_batch: int = 16
    """Updates after each collected batch."""
    capacity: int | None = None
    """Rows that replay holds, over all environments; None: the whole run, or what fits in half of the free memory."""
    replay_storage: Literal["device", "host", "disk"] = "device"
    """Where replay keeps observations: on the learner's device, in host memory, or in a file in the run's folder."""
    warmup_frames: int = 1000
    """Frames of uniformly random actions before the first update."""
    learning_rate: float = 1e-3
    """Learning rate of Adam at the first update."""
    learning_rate_end: float = 5e-5
    """Learning rate at the last update; it falls linearly."""
    adam_epsilon: float = 1e-8
    """Number that Adam adds to the root of the second moment."""
    weight_decay: float = 0.0
    """Coupled L2 weight decay: it is part of the gradient."""
    max_gradient_norm: float | None = 10.0
    """Global norm to which gradients are clipped; None: no clipping."""
    evaluate_every: int = 10_000
    """Frames between greedy evaluations; 0: only at the end."""
    evaluation_episodes: int = 10
    """Episodes of an evaluation; a quarter are played first, and the rest only if the agent can be the best so far."""
    max_episode_steps: int = 27_000
    """Steps after which an evaluation episode is cut and counts as truncated."""
    greedy_params: Literal["online", "target", "average"] = "target"
    """Parameters of the greedy agent that is evaluated and saved; average: mostly of the newest 11 % of updates."""
    log_every: int = 0
    """Frames between rows of metrics.csv; 0: one row per collected batch."""
    checkpoint_every: int = 10_000
    """Frames between checkpoints of the whole state, for `jaxdqn resume`; 0: none by frames, except the last."""
    checkpoint_seconds: float = 0.0
    """Maximum seconds between checkpoints; the next one waits until the current batch ends. 0: by frames only."""
    stop_seconds: float = 20.0
    """Seconds for the current batch to end after SIGTERM or Ctrl-C; after that the run ends without a checkpoint."""
    keep: int = 2
    """Number of newest checkpoints of the whole state to keep; older ones are used if the newest is damaged."""
    checkpoint_replay: bool = True
    """Include replay in checkpoints; without it a resumed run refills replay before it continues to learn."""
    restart_workers: bool = False
    """Rebuild the environments in worker processes if one fails, instead of ending the run."""

    def __post_init__(self) -> None:
        """Check the fields, before anything is built."""
        if self.network == RENAMED_NETWORK[0]:
            object.__setattr__(self, "network", RENAMED_NETWORK[1])
        for name in ("env", "eval_env"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, plain_id(getattr(self, name)))
        check_config(self)

    @property
    def evaluation_env(self) -> str:
        """Gymnasium id of the environment for evaluations."""
        return self.eval_env or self.env

    def check_split(self, parts: int) -> None:
        """Raise `ValueError` if the run cannot be split evenly over this many devices."""
        check_split(self, parts)

    @property
    def env_options(self) -> dict[str, Any]:
        """Options of the environment that are set."""
        options = {name: getattr(self, name) for name in ATARI_OPTIONS}
        return {name: value for name, value in options.items() if value is not None}

    @property
    def num_batches(self) -> int:
        """Number of collected batches in the whole run."""
        return -(-self.total_frames // self.frames_per_batch)

    @property
    def run_frames(self) -> int:
        """Rows in the whole run: `total_frames`, rounded up to a whole number of batches."""
        return self.num_batches * self.frames_per_batch

    @property
    def planned_capacity(self) -> int:
        """Rows that replay should hold; see `replay.capacity.with_capacity` for the limit by memory."""
        return self.run_frames if self.capacity is None else self.capacity

    @property
    def epsilon_duration(self) -> int:
        """Frames over which epsilon falls."""
        return -(-self.run_frames // 5) if self.epsilon_frames is None else self.epsilon_frames or self.run_frames

    @property
    def support(self) -> tuple[float, float]:
        """Lowest and highest return of the support, in units of scaled rewards."""
        bound = math.inf if self.gamma == 1 else self.reward_scale / (1 - self.gamma)
        return -bound if self.v_min is None else self.v_min, bound if self.v_max is None else self.v_max

    def for_env(self, env: str, *, pixels: bool | None = None) -> Config:
        """Return this config for another environment or for vectors, without the symmetries of its own images.

        Args:
            env: Gymnasium id; with the same one and the same `pixels`, the config is unchanged.
            pixels: Whether to learn from images; None: unchanged.
        """
        env, pixels = plain_id(env), self.pixels if pixels is None else pixels
        if (env, pixels) == (self.env, self.pixels):
            return self
        options: dict[str, Any] = {} if is_atari(env) else dict.fromkeys(ATARI_OPTIONS)
        return dataclasses.replace(self.without_symmetries(), env=env, pixels=pixels, **options)

    def has_foreign_symmetries(self, own_env: bool) -> bool:
        """Return whether shifts or mirror images are for another environment than the run's.

        Args:
            own_env: Whether the user passes an environment object instead of the id `env`.
        """
        restricted = self.symmetries_of is not None and (self.mirror or self.random_shift > 0)
        return restricted and (own_env or self.env != self.symmetries_of)

    def without_symmetries(self) -> Config:
        """Return this config without shifts and mirror images."""
        return dataclasses.replace(self, random_shift=0, mirror=False, symmetries_of=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Config:
        """Make a config from the result of `to_dict`; raise `ValueError` for an unknown field."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise ValueError(f"unknown field {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))
        return cls(**fields)
