"""The flags of `jaxdqn train`: preset < algorithm < flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxdqn.algorithms import ALGORITHMS, PIECES, with_pieces
from jaxdqn.cli.flags import parse, parse_known
from jaxdqn.config import Config
from jaxdqn.config_checks import WITH_SUPPORT, needed_piece, numbers_of_absent_pieces
from jaxdqn.distributed.options import DistributedOptions
from jaxdqn.presets import PRESETS

PRESET_HELP = (
    f"Train an agent. A PRESET may come before the flags: {', '.join(PRESETS)}. Without one, --env X takes neutral "
    "defaults; without --env either, the preset is cartpole."
)


@dataclass(frozen=True)
class AlgorithmFlag:
    """The flag that sets the pieces of an algorithm."""

    algorithm: Literal["dqn", "double", "c51", "hl-gauss", "qr", "iqn", "munchausen", "m-iqn", "rainbow"] | None = None
    """Algorithm, which sets double, munchausen, distribution, prioritized and noisy; None: those of the preset."""


@dataclass(frozen=True)
class TrainConfig(Config, AlgorithmFlag):
    """The flags of a config, and `--algorithm`."""

    def config(self) -> Config:
        """Return the config of the run."""
        return Config(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Config)})


@dataclass(frozen=True)
class Train(DistributedOptions, TrainConfig):
    """All flags of `jaxdqn train`."""

    def split(self) -> tuple[Config, DistributedOptions]:
        """Return the config of the run, and the options of this process."""
        names = [field.name for field in dataclasses.fields(DistributedOptions)]
        return self.config(), DistributedOptions(**{name: getattr(self, name) for name in names})


def parse_config(args: Sequence[str], preset: Config | None = None) -> Config:
    """Return a preset, changed by flags that name fields of the config.

    Args:
        args: The flags. If they name another environment or change `pixels`, they change `preset.for_env(...)`. If the
            preset's replay holds its whole run, so does that of a run with another `--total-frames`.
        preset: What the flags change; None takes `Config()` if they name an environment, else the preset `cartpole`.

    Raises:
        ValueError: If the flags are wrong.
    """
    default = TrainConfig(**_preset_for(args, preset).to_dict())
    config = parse(TrainConfig, "train", args, default, PRESET_HELP).config()
    _check_effect(args, config)
    return config


def parse_train(args: Sequence[str], preset: Config | None = None) -> tuple[Config, DistributedOptions]:
    """Parse the flags of `jaxdqn train`: those of the config (see `parse_config`) and of `DistributedOptions`."""
    default = Train(**_preset_for(args, preset).to_dict())
    config, options = parse(Train, "train", args, default, PRESET_HELP).split()
    _check_effect(args, config)
    options.check()
    return config, options


def _preset_for(args: Sequence[str], preset: Config | None) -> Config:
    given, _ = parse_known(_DefaultFlags, args, add_help=False)
    if preset is None:
        preset = PRESETS["cartpole"] if given.env is None else Config(env=given.env)
    preset = preset.for_env(given.env or preset.env, pixels=given.pixels)
    holds_run = preset.capacity is not None and preset.capacity >= preset.total_frames
    if given.total_frames is not None and holds_run:
        preset = dataclasses.replace(preset, capacity=None)
    pieces = {} if given.algorithm is None else dict(ALGORITHMS[given.algorithm])
    pieces |= {name: getattr(given, name) for name in PIECES if getattr(given, name) is not None}
    return with_pieces(preset, pieces) if pieces else preset


def _check_effect(args: Sequence[str], config: Config) -> None:
    """Raise `ValueError` if a flag is given that has no effect, because of the algorithm's pieces."""
    given = {word.split("=")[0].removeprefix("--").replace("-", "_") for word in args if word.startswith("--")}
    for name in numbers_of_absent_pieces(vars(config)):
        if name in given:
            raise ValueError(f"--{name.replace('_', '-')} has no effect without {needed_piece(name)}: add it")
    distribution, logits = f"distribution {config.distribution}", config.distribution in WITH_SUPPORT
    reasons = {
        "loss": config.distribution != "none" and f"{distribution}, which has its own loss",
        "value_bias": logits and f"{distribution}, whose numbers are logits",
        "tau": config.target_period is not None and "target_period, which copies the parameters",
        "epsilon_start": config.epsilon_schedule == "constant" and "epsilon_schedule constant",
        "epsilon_frames": config.epsilon_schedule == "constant" and "epsilon_schedule constant",
    }
    for name in ("epsilon_schedule", "epsilon_start", "epsilon_end", "epsilon_frames"):
        reasons[name] = (config.noisy and "noisy, which explores by itself") or reasons.get(name, False)
    for name, reason in reasons.items():
        if reason and name in given:
            raise ValueError(f"--{name.replace('_', '-')} has no effect with {reason}: leave it out")


@dataclass(frozen=True)
class _DefaultFlags(AlgorithmFlag):
    """The flags on which the defaults of the other flags depend."""

    env: str | None = None
    pixels: bool | None = None
    total_frames: int | None = None
    double: bool | None = None
    munchausen: bool | None = None
    distribution: str | None = None
    prioritized: bool | None = None
    noisy: bool | None = None
