"""How a config's returns are estimated and learned: the network's outputs and the objective that belong together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxdqn.config import Config
from jaxdqn.networks.outputs import Categorical, ImplicitQuantiles, Output, Quantiles, Values
from jaxdqn.objectives.categorical import categorical_q_learning
from jaxdqn.objectives.hl_gauss import hl_gauss_q_learning
from jaxdqn.objectives.losses import LOSSES
from jaxdqn.objectives.objective import Munchausen, Objective
from jaxdqn.objectives.q_learning import q_learning
from jaxdqn.objectives.quantile import quantile_q_learning


class Distribution(NamedTuple):
    """How a config's `distribution` is estimated and learned.

    Attributes:
        output: What the network's heads estimate for each action.
        objective: What an update minimises.
    """

    output: Callable[[Config], Output]
    objective: Callable[[Config], Objective]


def _munchausen(config: Config) -> Munchausen | None:
    numbers = config.munchausen_alpha, config.munchausen_tau, config.munchausen_clip
    return Munchausen(*numbers) if config.munchausen else None


def _categorical(config: Config) -> Categorical:
    return Categorical(*config.support, config.atoms)


def _quantile_objective(config: Config) -> Objective:
    return quantile_q_learning(double=config.double, munchausen=_munchausen(config))


DISTRIBUTIONS: dict[str, Distribution] = {
    "none": Distribution(
        lambda config: Values(),
        lambda config: q_learning(LOSSES[config.loss], double=config.double, munchausen=_munchausen(config)),
    ),
    "c51": Distribution(
        _categorical, lambda config: categorical_q_learning(_categorical(config).support, double=config.double)
    ),
    "hl-gauss": Distribution(_categorical, lambda c: hl_gauss_q_learning(_categorical(c).support, double=c.double)),
    "qr": Distribution(lambda config: Quantiles(config.quantiles), _quantile_objective),
    "iqn": Distribution(lambda config: ImplicitQuantiles(), _quantile_objective),
}
"""The choices of `Config.distribution`."""


def make_output(config: Config) -> Output:
    """Return what the network of a config estimates for each action."""
    return DISTRIBUTIONS[config.distribution].output(config)


def make_objective(config: Config) -> Objective:
    """Return the objective of a config."""
    return DISTRIBUTIONS[config.distribution].objective(config)


def num_taus(config: Config) -> int | None:
    """Return the number of quantile fractions that the network takes as an input; None: it takes none."""
    return config.iqn_taus if config.distribution == "iqn" else None
