"""Everything that decides a run, in one frozen record, and what is refused."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxdqn.config_checks import check_config, check_split

RENAMED_NETWORK = ("seed", "torchrl")
"""The former name of a network, which still works, and its name."""


@dataclass(frozen=True)
class Config:
    """One run; each field is a flag of `jaxdqn train`.

    The defaults assume nothing of the environment. What is tuned for one is a preset (`jaxdqn.PRESETS`).
    """

    env: str = "CartPole-v1"
    """Gymnasium id of an environment with discrete actions."""
    eval_env: str | None = None
    """Gymnasium id of the environment that evaluations play on, say without clipped rewards; None: that of training."""
    output: str | None = None
    """Folder of the run; None takes runs/NAME of the preset or the environment, with a number where it is taken."""
    seed: int = 0
    """Seed of parameters, exploration, sampling and environments."""
    pixels: bool | None = None
    """Learn from images, those of render() if need be; --no-pixels: vectors; None: what the environment gives."""
    colour: bool = False
    """Keep the colours of images that are resized; else they are made grey."""
    frame_size: int = 64
    """Side in pixels of resized images; small ones, and those with other than 1 or 3 channels, stay as they are."""
    frame_stack: int | None = None
    """Newest images that the network sees at once; None: 4 of those that are resized, 1 of others."""
    normalisation_frames: int | None = None
    """Random images whose mean and deviation normalise each channel; 0: none; None: 500 of those above 32 pixels."""
    network: Literal["auto", "cnn", "nature", "grid", "motion", "torchrl"] = "auto"
    """CNN for images; auto: cnn from 36 pixels on, else grid. motion and seed are for CartPole. Vectors have an MLP."""
    value_bias: float = 0.0
    """Value that a fresh network starts from."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """What its convolutions and first dense layer compute in: bfloat16 is for accelerators. Parameters are float32."""
    random_shift: int = 0
    """Pixels by which sampled transitions are shifted sideways, at most; 0 where that changes their value."""
    mirror: bool = False
    """Mirror half of the sampled transitions: images left to right, action a to num_actions - 1 - a."""
    symmetries_of: str | None = None
    """Gymnasium id whose images random_shift and mirror are true of: others train without them; None: all do with."""
    total_frames: int = 100_000
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
    batch_size: int = 64
    """Transitions of one update."""
    updates_per_batch: int = 16
    """Updates after each collected batch."""
    capacity: int | None = None
    """Rows that replay holds, over all environments; None: all of the run, or as many as half of what is free holds."""
    replay_storage: Literal["device", "host", "disk"] = "device"
    """Where its observations are: with the learner, in the host's memory, or in a file of the run's folder."""
    warmup_frames: int = 1000
    """Frames of uniformly random actions before the first update."""
    learning_rate: float = 1e-3
    """Step size of Adam at the first update."""
    learning_rate_end: float = 5e-5
    """Step size at the last update; it falls linearly."""
    weight_decay: float = 0.0
    """Coupled L2 decay."""
    gamma: float = 0.99
    """Discount a step."""
    n_steps: int = 3
    """Longest return before bootstrapping."""
    tau: float = 0.005
    """Share of the online parameters that enters the target after each update."""
    double: bool = True
    """Double Q-learning: the online network chooses the action that the target network values."""
    loss: Literal["squared", "huber"] = "huber"
    """Loss of the TD error."""
    reward_scale: float = 1.0
    """Factor on rewards before they are learned from; reported returns are raw."""
    epsilon_start: float = 1.0
    """Probability of a random action at frame 0 (it is 1 during warm-up)."""
    epsilon_end: float = 0.05
    """Probability of a random action once it has fallen; with 0.01, agents of LunarLander-v3 hover and do not land."""
    epsilon_frames: int | None = None
    """Frames over which it falls linearly; None: a fifth of the run, 0: the whole run."""
    max_gradient_norm: float | None = 10.0
    """Global norm to which gradients are clipped; None does not clip."""
    evaluate_every: int = 10_000
    """Frames between greedy evaluations; 0 evaluates at the end only."""
    evaluation_episodes: int = 10
    """Episodes of an evaluation that may name the best agent; a quarter of them are played first, to screen."""
    max_episode_steps: int = 27_000
    """Steps after which an episode of an evaluation is cut, and counts as truncated."""
    greedy_params: Literal["online", "target"] = "target"
    """Parameters of the greedy agent that is evaluated and kept: the online ones, or the target's Polyak average."""
    log_every: int = 0
    """Frames between rows of metrics.csv; 0 writes one a collected batch."""
    checkpoint_every: int = 10_000
    """Frames between checkpoints of the whole state, for `jaxdqn resume`; 0 writes none by frames but the last."""
    checkpoint_seconds: float = 0.0
    """Seconds after a checkpoint at which the next one is written at the latest, once its batch ends; 0: by frames."""
    stop_seconds: float = 20.0
    """Seconds that SIGTERM or Ctrl-C leave to the batch that is trained, before the run ends without a checkpoint."""
    keep: int = 2
    """Newest checkpoints of the whole state to keep; the older ones are for where the newest is damaged."""
    checkpoint_replay: bool = True
    """Keep replay in them; without it a resumed run refills replay before it learns on."""
    restart_workers: bool = False
    """Build environments in workers again where one has failed, in place of ending the run."""

    def __post_init__(self) -> None:
        """Refuse what cannot run, before anything is built."""
        if self.network == RENAMED_NETWORK[0]:
            object.__setattr__(self, "network", RENAMED_NETWORK[1])
        check_config(self)

    @property
    def evaluation_env(self) -> str:
        """Gymnasium id of the environment that evaluations play on."""
        return self.eval_env or self.env

    def check_split(self, parts: int) -> None:
        """Raise `ValueError` if the run cannot be split evenly over so many devices."""
        check_split(self, parts)

    @property
    def num_batches(self) -> int:
        """Batches of the whole run."""
        return -(-self.total_frames // self.frames_per_batch)

    @property
    def run_frames(self) -> int:
        """Rows of the whole run: `total_frames`, rounded up to a whole batch."""
        return self.num_batches * self.frames_per_batch

    @property
    def planned_capacity(self) -> int:
        """Rows that replay is to hold; `schedules.with_capacity` looks whether they fit."""
        return self.run_frames if self.capacity is None else self.capacity

    @property
    def epsilon_duration(self) -> int:
        """Frames over which epsilon falls."""
        return -(-self.run_frames // 5) if self.epsilon_frames is None else self.epsilon_frames or self.run_frames

    def for_env(self, env: str, *, pixels: bool | None = None) -> Config:
        """This config for another environment or for vectors, without the symmetries of this one's images.

        Args:
            env: Gymnasium id; the same one leaves the symmetries as they are.
            pixels: Whether to learn from images; None leaves that as it is.
        """
        pixels = self.pixels if pixels is None else pixels
        if (env, pixels) == (self.env, self.pixels):
            return self
        return dataclasses.replace(self.without_symmetries(), env=env, pixels=pixels)

    def has_foreign_symmetries(self, own_env: bool) -> bool:
        """Whether shifts or mirror images are true of another environment's images than the run's.

        Args:
            own_env: Whether the run has an environment of the user's own in place of `env`.
        """
        known = self.symmetries_of is not None and (self.mirror or self.random_shift > 0)
        return known and (own_env or self.env != self.symmetries_of)

    def without_symmetries(self) -> Config:
        """This config without shifts and mirror images."""
        return dataclasses.replace(self, random_shift=0, mirror=False, symmetries_of=None)

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
