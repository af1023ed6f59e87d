"""Checks of a config: types and ranges of the fields, and their combinations. Each message names the field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from jaxdqn.config_fields import ATARI_OPTIONS, is_atari

Config = Any
"""A `jaxdqn.config.Config`; that module imports this one."""

WITH_SUPPORT = ("c51", "hl-gauss")
"""Distributions over a support: probabilities of returns from `v_min` to `v_max`."""

PIECE_OF: dict[str, tuple[str, tuple[Any, ...]]] = {
    **dict.fromkeys(("munchausen_alpha", "munchausen_tau", "munchausen_clip"), ("munchausen", (True,))),
    **dict.fromkeys(("atoms", "v_min", "v_max"), ("distribution", WITH_SUPPORT)),
    "quantiles": ("distribution", ("qr",)),
    "iqn_taus": ("distribution", ("iqn",)),
    **dict.fromkeys(("priority_alpha", "priority_beta", "priority_beta_end"), ("prioritized", (True,))),
    "noisy_sigma": ("noisy", (True,)),
}
"""The piece of an algorithm that each number belongs to: a field, and its values that give the number an effect."""

_POSITIVE = (
    "frame_size",
    "total_frames",
    "num_envs",
    "num_devices",
    "frames_per_batch",
    "batch_size",
    "updates_per_batch",
    "n_steps",
    "evaluation_episodes",
    "max_episode_steps",
    "keep",
    "learning_rate",
    "adam_epsilon",
    "reward_scale",
    "munchausen_tau",
    "quantiles",
    "iqn_taus",
    "noisy_sigma",
    "stop_seconds",
)
_NOT_NEGATIVE = (
    "random_shift",
    "warmup_frames",
    "evaluate_every",
    "log_every",
    "checkpoint_every",
    "checkpoint_seconds",
    "learning_rate_end",
    "weight_decay",
    "seed",
)


_EXPONENTS = ("priority_alpha", "priority_beta", "priority_beta_end")


def check_config(config: Config) -> None:
    """Raise `ValueError` with the field, its value and what to do, if a config cannot run."""
    _check_types(config)
    for name in _POSITIVE:
        _check(config, name, getattr(config, name) > 0, "must be above 0")
    for name in _NOT_NEGATIVE:
        _check(config, name, getattr(config, name) >= 0, "must be 0 or above")
    for name in ("gamma", "tau", "epsilon_start", "epsilon_end", *_EXPONENTS):
        _check(config, name, 0 <= getattr(config, name) <= 1, "must be between 0 and 1")
    if config.max_gradient_norm is not None:
        _check(config, "max_gradient_norm", config.max_gradient_norm > 0, "must be above 0, or None not to clip")
    _check(config, "seed", config.seed < 2**32, "must be below 2**32")
    _check(config, "total_frames", config.total_frames < 2**31, "must be below 2**31, the limit of the counters")
    _check(config, "output", config.output != "", "must name a folder")
    _check(config, "normalisation_frames", config.normalisation_frames != 1, "must be 0 for none, or at least 2")
    for name in ("env", "eval_env", "symmetries_of"):
        _check(config, name, getattr(config, name) != "", "must name an environment, such as CartPole-v1")
    for name, none in (("frame_stack", "None for the default"), ("capacity", "None for the whole run")):
        value = getattr(config, name)
        _check(config, name, value is None or value > 0, f"must be above 0, or {none}")
    for name in ("epsilon_frames", "normalisation_frames", "noop_max"):
        value = getattr(config, name)
        _check(config, name, value is None or value >= 0, "must be 0 or above")
    for name, hint in get_type_hints(type(config)).items():
        if get_origin(hint) is Literal:
            choices = get_args(hint)
            _check(config, name, getattr(config, name) in choices, f"must be one of {', '.join(choices)}")
    _check_atari(config)
    _check_algorithm(config)
    _check_sizes(config)


def _check_atari(config: Config) -> None:
    for name in ATARI_OPTIONS:
        allowed = getattr(config, name) is None or is_atari(config.env) or is_atari(config.eval_env or "")
        _check(config, name, allowed, f"needs an Atari game, such as ALE/Pong-v5, not {config.env}: set it to None")
    allowed = not (is_atari(config.env) and config.restart_workers)
    _check(config, "restart_workers", allowed, "has no effect on Atari games, which have no workers: set it to False")
    skip, sticky = config.frame_skip, config.sticky_actions
    _check(config, "frame_skip", skip is None or 0 < skip <= 1000, "must be from 1 to 1000, or None for 4")
    _check(config, "noop_max", config.noop_max is None or config.noop_max <= 1000, "must be at most 1000")
    _check(config, "sticky_actions", sticky is None or 0 <= sticky <= 1, "must be between 0 and 1, or None for 0.25")


def numbers_of_absent_pieces(fields: Mapping[str, Any]) -> list[str]:
    """Return the names of the numbers that have no effect, because their piece of an algorithm is off."""
    return [name for name, (piece, values) in PIECE_OF.items() if fields[piece] not in values]


def needed_piece(name: str) -> str:
    """Return the setting that a number of `PIECE_OF` needs, for messages."""
    piece, values = PIECE_OF[name]
    return piece if values == (True,) else f"{piece} {' or '.join(values)}"


def _check_algorithm(config: Config) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in numbers_of_absent_pieces(vars(config)):
        allowed = getattr(config, name) == defaults[name]
        _check(config, name, allowed, f"needs {needed_piece(name)}: set that, or this to {defaults[name]}")
    _check(config, "munchausen_alpha", 0 <= config.munchausen_alpha <= 1, "must be between 0 and 1")
    _check(config, "munchausen_clip", config.munchausen_clip < 0, "must be below 0")
    _check(config, "atoms", config.atoms > 1, "must be at least 2")
    period = config.target_period
    _check(config, "target_period", period is None or period > 0, "must be above 0, or None for tau")
    allowed = not (config.double and config.munchausen)
    _check(config, "munchausen", allowed, "has no greedy next action for double to choose: set double to False")
    allowed = not config.munchausen or config.distribution in ("none", "qr", "iqn")
    _check(config, "munchausen", allowed, f"needs distribution none, qr or iqn, not {config.distribution}")
    if config.distribution in WITH_SUPPORT:
        low, high = config.support
        _check(config, "v_min", math.isfinite(low), "has no default with gamma 1: set it, and v_max")
        _check(config, "v_max", math.isfinite(high), "has no default with gamma 1: set it")
        _check(config, "v_min", low < high, f"must be below v_max {high:g}")
    exponential = config.epsilon_schedule == "exponential" and not config.noisy
    for name in ("epsilon_start", "epsilon_end"):
        allowed = not exponential or getattr(config, name) > 0
        _check(config, name, allowed, "must be above 0 with epsilon_schedule exponential")


def _check_types(config: Config) -> None:
    type_names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        plain = value.item() if isinstance(value, np.generic) else value
        plain = plain.__fspath__() if hasattr(plain, "__fspath__") else plain
        if plain is not value:
            object.__setattr__(config, name, plain)
            value = plain
        allowed = getattr(hint, "__args__", (hint,))
        expected = next((kind for kind in allowed if kind is not type(None)), hint)
        # `check_config` checks the choices of fields, and the parser those of flags that are no field.
        if Literal in (get_origin(hint), get_origin(expected)) or (value is None and type(None) in allowed):
            continue
        if expected is float and type(value) is int and abs(value) < 2**53:
            object.__setattr__(config, name, float(value))  # so that 1 and 1.0 are the same run
        elif expected is float and type(value) is int:
            raise ValueError(f"{name} {value} must be below 2**53: above it floats are not exact")
        elif type(value) is not expected:
            none = " or None" if type(None) in allowed else ""
            raise ValueError(f"{name} {value!r} must be {type_names[expected]}{none}")
        elif expected is float and not math.isfinite(value):
            raise ValueError(f"{name} {value} must be a finite number")


def _check_sizes(config: Config) -> None:
    capacity = config.planned_capacity
    limit = f"total_frames {config.total_frames}" if config.capacity is None else f"capacity {capacity}"
    _check(config, "batch_size", config.batch_size <= capacity, f"is larger than {limit}: lower it")
    check_split(config, config.num_devices)
    allowed = config.num_devices == 1 or config.replay_storage == "device"
    _check(config, "replay_storage", allowed, f"needs num_devices 1, not {config.num_devices}: set it to device")
    if config.loop == "device":
        _check(config, "collector", config.collector == "sync", "needs loop host: set it to sync")
        _check(config, "replay_storage", config.replay_storage == "device", "needs loop host: set it to device")
        _check(config, "terminal_on_life_loss", not config.terminal_on_life_loss, "needs loop host: set it to False")
    allowed = config.collector == "async" or not config.restart_workers
    _check(config, "restart_workers", allowed, "needs collector async: set it to False")
    images = config.pixels is not False  # the environment decides what None means
    _check(config, "random_shift", images or not config.random_shift, "needs pixels: set it to 0")
    _check(config, "mirror", images or not config.mirror, "needs pixels: set it to False")
    _check(config, "colour", images or not config.colour, "needs pixels: set it to False")
    allowed = images or config.compute_dtype == "float32"
    _check(config, "compute_dtype", allowed, "needs pixels: set it to float32")
    remainder = config.frames_per_batch % config.num_envs
    if remainder:
        lower = config.frames_per_batch - remainder
        nearest = " or ".join(str(frames) for frames in (lower, lower + config.num_envs) if frames)
        _check(config, "frames_per_batch", False, f"must be a multiple of num_envs {config.num_envs}: use {nearest}")
    _check(
        config,
        "frames_per_batch",
        config.frames_per_batch <= capacity // config.num_envs * config.num_envs,
        f"does not fit {limit}: lower it",
    )
    _check(
        config,
        "warmup_frames",
        config.warmup_frames < config.total_frames,
        "must be below total_frames, or nothing is learned",
    )


def check_split(config: Config, parts: int) -> None:
    """Raise `ValueError` if a run cannot be split evenly over this many devices."""
    for name in ("num_envs", "batch_size"):
        remainder = getattr(config, name) % parts
        if remainder:
            lower = getattr(config, name) - remainder
            nearest = " or ".join(str(number) for number in (lower, lower + parts) if number)
            over = "num_devices" if parts == config.num_devices else "the devices of all processes,"
            _check(config, name, False, f"cannot be split over {over} {parts}: use {nearest}")


def _check(config: Config, name: str, condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"{name} {getattr(config, name)!r} {message}")
