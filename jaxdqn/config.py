"""Everything that decides a run, in one frozen record, and what is refused."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

_POSITIVE = (
    "frame_size",
    "frame_stack",
    "total_frames",
    "num_envs",
    "num_devices",
    "frames_per_batch",
    "batch_size",
    "updates_per_batch",
    "capacity",
    "n_steps",
    "evaluation_episodes",
    "keep",
    "learning_rate",
    "reward_scale",
)
_NOT_NEGATIVE = (
    "random_shift",
    "warmup_frames",
    "evaluate_every",
    "log_every",
    "checkpoint_every",
    "learning_rate_end",
    "weight_decay",
    "seed",
)


@dataclass(frozen=True)
class Config:
    """One run; each field is a flag of `jaxdqn train`.

    The defaults are the preset `cartpole` but for `random_shift` and `mirror`: what is true of CartPole's frames need
    not be true of others.
    """

    env: str = "CartPole-v1"
    """Gymnasium id of an environment with discrete actions."""
    output: str | None = None
    """Folder of the run; None takes runs/PRESET (in Python runs/run), or runs/PRESET-2 and so on where it is taken."""
    seed: int = 0
    """Seed of parameters, exploration, sampling and environments."""
    pixels: bool = True
    """Learn from frames; --no-pixels learns from the observation vector."""
    frame_size: int = 64
    """Side in pixels to which frames are resized."""
    frame_stack: int = 4
    """Newest frames that the network sees at once."""
    normalisation_frames: int = 200
    """Random-policy frames from which each channel's mean and deviation are taken."""
    network: Literal["motion", "seed"] = "motion"
    """Network for frames: a small one that is given their differences, or the seed's own. Vectors have an MLP."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """What its convolutions and first dense layer compute in: bfloat16 is for accelerators. Parameters are float32."""
    random_shift: int = 0
    """Pixels by which sampled transitions are shifted sideways, at most; 0 where that changes their value."""
    mirror: bool = False
    """Mirror half of the sampled transitions: frames left to right, action a to num_actions - 1 - a."""
    total_frames: int = 18_000
    """Rows collected over all environments, rounded up to a whole batch."""
    num_envs: int = 8
    """Environments stepped in lockstep."""
    num_devices: int = 1
    """Devices of each process over which environments, replay and batches are split; gradients are averaged."""
    loop: Literal["host", "device"] = "host"
    """Step gymnasium's environments, or their functional twins in one program with the learner."""
    collector: Literal["sync", "async"] = "sync"
    """Step environments in this process between two rounds of updates, or in processes of their own beside them."""
    frames_per_batch: int = 32
    """Rows collected between two rounds of updates, over all environments."""
    batch_size: int = 32
    """Transitions of one update."""
    updates_per_batch: int = 32
    """Updates after each collected batch."""
    capacity: int = 18_000
    """Rows that replay holds, over all environments."""
    replay_storage: Literal["device", "host", "disk"] = "device"
    """Where its frames are: with the learner, in the host's memory, or in a file of the run's folder."""
    warmup_frames: int = 1000
    """Frames of uniformly random actions before the first update."""
    learning_rate: float = 1e-3
    """Step size of Adam at the first update."""
    learning_rate_end: float = 5e-5
    """Step size at the last update; it falls linearly."""
    weight_decay: float = 1e-5
    """Coupled L2 decay."""
    gamma: float = 0.99
    """Discount a step."""
    n_steps: int = 10
    """Longest return before bootstrapping."""
    tau: float = 0.005
    """Share of the online parameters that enters the target after each update."""
    double: bool = True
    """Double Q-learning: the online network chooses the action that the target network values."""
    loss: Literal["squared", "huber"] = "squared"
    """Loss of the TD error."""
    reward_scale: float = 0.1
    """Factor on rewards before they are learned from; reported returns are raw."""
    epsilon_start: float = 0.1
    """Probability of a random action at frame 0 (it is 1 during warm-up)."""
    epsilon_end: float = 0.005
    """Probability of a random action at the last frame."""
    max_gradient_norm: float | None = None
    """Global norm to which gradients are clipped; None does not clip."""
    evaluate_every: int = 3000
    """Frames between greedy evaluations; 0 evaluates at the end only."""
    evaluation_episodes: int = 10
    """Episodes of an evaluation that may name the best agent; a quarter of them are played first, to screen."""
    greedy_params: Literal["online", "target"] = "target"
    """Parameters of the greedy agent that is evaluated and kept: the online ones, or the target's Polyak average."""
    log_every: int = 0
    """Frames between rows of metrics.csv; 0 writes one a collected batch."""
    checkpoint_every: int = 3000
    """Frames between checkpoints of the whole state, for `jaxdqn resume`; 0 writes one at the end only."""
    keep: int = 2
    """Newest checkpoints of the whole state to keep; the older ones are for where the newest is damaged."""
    checkpoint_replay: bool = True
    """Keep replay in them; without it a resumed run refills replay before it learns on."""
    restart_workers: bool = False
    """Build environments in workers again where one has failed, in place of ending the run."""

    def __post_init__(self) -> None:
        """Refuse what cannot run, before anything is built."""
        self._check_types()
        for name in _POSITIVE:
            self._require(name, getattr(self, name) > 0, "must be above 0")
        for name in _NOT_NEGATIVE:
            self._require(name, getattr(self, name) >= 0, "must be 0 or above")
        for name in ("gamma", "tau", "epsilon_start", "epsilon_end"):
            self._require(name, 0 <= getattr(self, name) <= 1, "must be between 0 and 1")
        if self.max_gradient_norm is not None:
            self._require("max_gradient_norm", self.max_gradient_norm > 0, "must be above 0, or None not to clip")
        self._require("seed", self.seed < 2**32, "must be below 2**32")
        self._require("total_frames", self.total_frames < 2**31, "must be below 2**31, which is what counters hold")
        self._require("output", self.output != "", "must name a folder")
        self._require("normalisation_frames", self.normalisation_frames >= 2, "must be at least 2")
        self._require("env", bool(self.env), "must name an environment, such as CartPole-v1")
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal:
                choices = get_args(hint)
                self._require(name, getattr(self, name) in choices, f"must be one of {', '.join(choices)}")
        self._check_sizes()

    def _check_types(self) -> None:
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            allowed = getattr(hint, "__args__", (hint,))
            if get_origin(hint) is Literal or (value is None and type(None) in allowed):
                continue
            wanted = next(kind for kind in allowed if kind is not type(None))
            if wanted is float and type(value) is int and abs(value) < 2**53:
                object.__setattr__(self, name, float(value))  # so that 1 and 1.0 are the same run
            elif type(value) is not wanted:
                raise ValueError(f"{name} {value!r} must be {words[wanted]}")
            elif wanted is float and not math.isfinite(value):
                raise ValueError(f"{name} {value} must be a finite number")

    def _check_sizes(self) -> None:
        self._require(
            "batch_size", self.batch_size <= self.capacity, f"is larger than capacity {self.capacity}: lower it"
        )
        self.check_split(self.num_devices)
        one = self.num_devices == 1 or self.replay_storage == "device"
        self._require("replay_storage", one, f"needs num_devices 1 and not {self.num_devices}: set it to device")
        if self.loop == "device":
            self._require("collector", self.collector == "sync", "needs loop host: set it to sync")
            self._require("replay_storage", self.replay_storage == "device", "needs loop host: set it to device")
        workers = self.collector == "async" or not self.restart_workers
        self._require("restart_workers", workers, "needs collector async: set it to False")
        self._require("random_shift", self.pixels or not self.random_shift, "needs pixels: set it to 0")
        self._require("mirror", self.pixels or not self.mirror, "needs pixels: set it to False")
        own = self.pixels or self.compute_dtype == "float32"
        self._require("compute_dtype", own, "needs pixels: set it to float32")
        fits = self.random_shift < self.frame_size
        self._require("random_shift", fits, f"must be below frame_size {self.frame_size}")
        spare = self.frames_per_batch % self.num_envs
        if spare:
            lower = self.frames_per_batch - spare
            near = " or ".join(str(frames) for frames in (lower, lower + self.num_envs) if frames)
            self._require("frames_per_batch", False, f"must be a multiple of num_envs {self.num_envs}: use {near}")
        self._require(
            "frames_per_batch",
            self.frames_per_batch <= self.capacity // self.num_envs * self.num_envs,
            f"does not fit capacity {self.capacity}: lower it",
        )
        self._require(
            "warmup_frames", self.warmup_frames < self.total_frames, "must be below total_frames, or nothing is learned"
        )

    def check_split(self, parts: int) -> None:
        """Raise `ValueError` where the run cannot be split evenly over so many devices."""
        for name in ("num_envs", "batch_size"):
            spare = getattr(self, name) % parts
            if spare:
                lower = getattr(self, name) - spare
                near = " or ".join(str(number) for number in (lower, lower + parts) if number)
                over = "num_devices" if parts == self.num_devices else "the devices of all processes,"
                self._require(name, False, f"cannot be split over {over} {parts}: use {near}")

    def _require(self, name: str, holds: bool, mend: str) -> None:
        if not holds:
            raise ValueError(f"{name} {getattr(self, name)!r} {mend}")

    @property
    def num_batches(self) -> int:
        """Batches of the whole run."""
        return -(-self.total_frames // self.frames_per_batch)

    def for_env(self, env: str, *, pixels: bool | None = None) -> Config:
        """This config for another environment or for vectors, without the symmetries of this one's frames.

        Args:
            env: Gymnasium id; the same one leaves the symmetries as they are.
            pixels: Whether to learn from frames; None leaves that as it is.
        """
        pixels = self.pixels if pixels is None else pixels
        if (env, pixels) == (self.env, self.pixels):
            return self
        return dataclasses.replace(self, env=env, pixels=pixels, random_shift=0, mirror=False)

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, as JSON takes them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Config:
        """The inverse of `to_dict`; raises `ValueError` for a field that does not exist."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise ValueError(f"unknown field {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))
        return cls(**fields)
