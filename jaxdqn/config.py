"""The configuration of a run, in one frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxdqn.config_checks import check_config, check_split

RENAMED_NETWORK = ("seed", "torchrl")
"""The former name of a network, which still works, and its current name."""


@dataclass(frozen=True)
class Config:
    """Configuration of one run; each field is a flag of `jaxdqn train`.

    The defaults assume nothing about the environment. Settings tuned for one environment are presets
    (`jaxdqn.PRESETS`).
    """

    env: str = "CartPole-v1"
    """Gymnasium id of an environment with discrete actions."""
    eval_env: str | None = None
    """Gymnasium id of the environment for evaluations, for example without clipped rewards; None: the same as env."""
    output: str | None = None
    """Folder of the run; None: runs/NAME of the preset or the environment, with a number if that folder exists."""
    seed: int = 0
    """Seed of the parameters, exploration, sampling and environments."""
    pixels: bool | None = None
    """Learn from images, drawn by render() if needed; --no-pixels: from vectors; None: from what the env gives."""
    colour: bool = False
    """Keep the colours of resized images; otherwise they become grey."""
    frame_size: int = 64
    """Height and width of resized images. Images up to 32x32, or with other than 1 or 3 channels, are not resized."""
    frame_stack: int | None = None
    """Number of newest images that the network sees at once; None: 4 for grey or resized images, 1 for grids."""
    normalisation_frames: int | None = None
    """Random-rollout images for the mean and deviation that normalise channels; 0: none; None: 500 if above 32x32."""
    network: Literal["auto", "cnn", "nature", "grid", "motion", "torchrl"] = "auto"
    """CNN for images; auto: cnn from 36x36 pixels, otherwise grid. motion and torchrl: for CartPole. Vectors: MLP."""
    value_bias: float = 0.0
    """Value that the network predicts initially: the bias of its value head."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype in which convolutions and the first dense layer compute; bfloat16: accelerators. Parameters: float32."""
    random_shift: int = 0
    """Largest sideways shift of sampled transitions, in pixels; use 0 if a shift changes their value."""
    mirror: bool = False
    """Mirror half of the sampled transitions: flip images left to right, replace action a by num_actions - 1 - a."""
    symmetries_of: str | None = None
    """Gymnasium id of the only environment that random_shift and mirror apply to; None: to every environment."""
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
    weight_decay: float = 0.0
    """Coupled L2 weight decay: it is part of the gradient."""
    gamma: float = 0.99
    """Discount per step."""
    n_steps: int = 3
    """Maximum number of steps in a return before bootstrapping."""
    tau: float = 0.005
    """Fraction of the online parameters that enters the target after each update."""
    double: bool = True
    """Use double Q-learning: the online network chooses the next action and the target network evaluates it."""
    loss: Literal["squared", "huber"] = "huber"
    """Loss of the TD error."""
    reward_scale: float = 1.0
    """Factor on rewards for learning; reported returns are not scaled."""
    epsilon_start: float = 1.0
    """Probability of a random action at frame 0; during the warm-up it is 1."""
    epsilon_end: float = 0.05
    """Final probability of a random action; with 0.01, agents of LunarLander-v3 hover in some episodes."""
    epsilon_frames: int | None = None
    """Frames over which epsilon falls linearly; None: a fifth of the run; 0: the whole run."""
    max_gradient_norm: float | None = 10.0
    """Global norm to which gradients are clipped; None: no clipping."""
    evaluate_every: int = 10_000
    """Frames between greedy evaluations; 0: only at the end."""
    evaluation_episodes: int = 10
    """Episodes of an evaluation; a quarter are played first, and the rest only if the agent can be the best so far."""
    max_episode_steps: int = 27_000
    """Steps after which an evaluation episode is cut and counts as truncated."""
    greedy_params: Literal["online", "target"] = "target"
    """Parameters of the greedy agent that is evaluated and saved: online, or target (their Polyak average)."""
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
        check_config(self)

    @property
    def evaluation_env(self) -> str:
        """Gymnasium id of the environment for evaluations."""
        return self.eval_env or self.env

    def check_split(self, parts: int) -> None:
        """Raise `ValueError` if the run cannot be split evenly over this many devices."""
        check_split(self, parts)

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

    def for_env(self, env: str, *, pixels: bool | None = None) -> Config:
        """Return this config for another environment or for vectors, without the symmetries of its own images.

        Args:
            env: Gymnasium id; with the same one and the same `pixels`, the config is unchanged.
            pixels: Whether to learn from images; None: unchanged.
        """
        pixels = self.pixels if pixels is None else pixels
        if (env, pixels) == (self.env, self.pixels):
            return self
        return dataclasses.replace(self.without_symmetries(), env=env, pixels=pixels)

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
