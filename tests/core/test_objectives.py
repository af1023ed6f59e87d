"""Objectives against numbers computed by hand, brute-force NumPy models, and rlax on random inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import SUPPORT, categorical, estimates_of, quantiles, random_estimates, rlax, transition

from jaxdqn.objectives.categorical import categorical_q_learning
from jaxdqn.objectives.hl_gauss import hl_gauss_q_learning
from jaxdqn.objectives.losses import huber_loss
from jaxdqn.objectives.objective import Munchausen
from jaxdqn.objectives.q_learning import q_learning
from jaxdqn.objectives.quantile import quantile_huber_loss, quantile_q_learning
from jaxdqn.types import QOutputs

pytestmark = [
    pytest.mark.usefixtures("strict_promotion"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:rlax"),
]


def test_munchausen_equals_the_formula_worked_out_by_hand():
    """With tau 1 the policy is the softmax of the values: [1/4, 3/4] for values of difference ln 3."""
    ln3 = np.log(3.0)
    estimates = estimates_of([5.0, 1.0], [0.0, ln3], [9.0, 9.0], [2.0, 2.0 + ln3])
    munchausen = Munchausen(alpha=0.5, tau=1.0, clip=-1.0)
    loss, priority, metrics = q_learning(huber_loss, munchausen=munchausen)(estimates, transition(action=0))
    bonus = 0.5 * -1.0  # ln(1/4) is below the clip
    value = 0.25 * (2.0 - np.log(0.25)) + 0.75 * (2.0 + ln3 - np.log(0.75))
    error = 0.5 + bonus + 0.9 * value - 5.0
    np.testing.assert_allclose(priority, abs(error), rtol=1e-5)
    np.testing.assert_allclose(loss, abs(error) - 0.5 if abs(error) > 1 else error**2 / 2, rtol=1e-5)
    assert metrics == {}
    _, of_likely, _ = q_learning(munchausen=munchausen)(estimates, transition(action=1))
    np.testing.assert_allclose(of_likely, abs(0.5 + 0.5 * np.log(0.75) + 0.9 * value - 1.0), rtol=1e-5)


def test_munchausens_bonus_is_clipped_also_for_an_action_whose_probability_underflows():
    estimates = estimates_of([0.0, 0.0], [0.0, 1000.0], [0.0, 0.0], [0.0, 0.0])
    _, priority, _ = q_learning(munchausen=Munchausen())(estimates, transition(action=0, reward=0.0, discount=0.0))
    np.testing.assert_allclose(priority, 0.9, rtol=1e-6)


def test_munchausen_without_temperature_is_plain_q_learning():
    estimates = random_estimates(0, 4, 1, lambda values: QOutputs(values[:, 0]))
    cold = q_learning(munchausen=Munchausen(alpha=0.0, tau=1e-4))(estimates, transition())
    plain = q_learning()(estimates, transition())
    np.testing.assert_allclose(cold[0], plain[0], rtol=1e-3)


@pytest.mark.parametrize("kappa", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("double", [False, True])
def test_quantile_regression_equals_rlax_and_a_loop(kappa, double):
    estimates = random_estimates(3, 3, 5, quantiles)
    batch = transition(action=2)
    loss, priority, _ = quantile_q_learning(kappa, double=double)(estimates, batch)
    selector = estimates.next_online if double else estimates.next_target
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        online, taus = estimates.online.dist.T, estimates.online.taus
        args = (online, taus, batch.action, batch.reward, batch.discount)
        theirs = rlax.quantile_q_learning(*args, selector.dist.T, estimates.next_target.dist.T, kappa)
    np.testing.assert_allclose(loss, theirs / (kappa or 1.0), rtol=1e-5)  # rlax leaves out the paper's division
    best = int(np.argmax(selector.q_values))
    targets = 0.5 + 0.9 * np.asarray(estimates.next_target.dist)[best]
    own, total = np.asarray(estimates.online.dist)[2], 0.0
    for tau, quantile in zip(np.asarray(taus), own, strict=True):
        for target in targets:
            u = target - quantile
            size = abs(u) if kappa == 0 else (u * u / 2 if abs(u) <= kappa else kappa * (abs(u) - kappa / 2)) / kappa
            total += abs(tau - (u < 0)) * size / len(targets)
    np.testing.assert_allclose(loss, total, rtol=1e-5)
    np.testing.assert_allclose(priority, abs(targets.mean() - own.mean()), rtol=1e-5)


def test_munchausen_of_quantiles_averages_them_by_the_policy():
    """With a single quantile M-IQN's target is Munchausen DQN's."""
    estimates = random_estimates(5, 4, 1, quantiles)
    batch, munchausen = transition(action=3), Munchausen(tau=0.5)
    _, expected, _ = q_learning(munchausen=munchausen)(estimates, batch)
    _, found, _ = quantile_q_learning(munchausen=munchausen)(estimates, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


OBJECTIVES = {
    "q": (q_learning(), lambda values: QOutputs(values.mean(axis=-1))),
    "double": (q_learning(double=True), lambda values: QOutputs(values.mean(axis=-1))),
    "munchausen": (q_learning(munchausen=Munchausen()), lambda values: QOutputs(values.mean(axis=-1))),
    "c51": (categorical_q_learning(jnp.asarray(SUPPORT), double=True), categorical),
    "hl-gauss": (hl_gauss_q_learning(jnp.asarray(SUPPORT)), categorical),
    "qr": (quantile_q_learning(), quantiles),
    "m-iqn": (quantile_q_learning(munchausen=Munchausen()), quantiles),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_actions_that_are_not_allowed_have_no_part_in_the_target(name):
    """The loss with a mask is that of a network without the actions that the mask forbids."""
    objective, read = OBJECTIVES[name]
    five = random_estimates(7, 5, len(SUPPORT), read)
    allowed = jnp.array([0, 2, 3])
    three = jax.tree.map(lambda x: x[allowed] if x.ndim and x.shape[0] == 5 else x, five)
    mask = np.isin(np.arange(5), allowed)
    masked = objective(five, transition(action=2, mask=mask, next_mask=mask))
    without = objective(three, transition(action=1))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), masked, without)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_only_the_online_estimates_have_a_gradient_and_a_terminal_state_has_no_future(name):
    objective, read = OBJECTIVES[name]
    estimates = random_estimates(9, 3, len(SUPPORT), read)
    nothing = np.zeros(3, bool)  # the mask that some environments give at the end of an episode
    batch = transition(discount=0.0, mask=np.ones(3, bool), next_mask=nothing)

    def loss(estimates):
        return objective(estimates, batch)[0]

    gradient = jax.grad(lambda online: loss(estimates._replace(online=online)))(estimates.online)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) > 1e-3
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    moved = estimates._replace(next_target=jax.tree.map(lambda x: x + 5.0, estimates.next_target))
    np.testing.assert_allclose(loss(moved), loss(estimates), rtol=1e-5)


def test_an_objective_refuses_a_network_without_its_distribution_and_wrong_numbers():
    estimates = estimates_of(*[[0.0, 1.0]] * 4)
    with pytest.raises(ValueError, match="needs a distribution and the network returns none"):
        categorical_q_learning(jnp.asarray(SUPPORT))(estimates, transition())
    without_taus = random_estimates(0, 2, 3, lambda values: QOutputs(values.mean(axis=-1), values))
    with pytest.raises(ValueError, match="needs quantiles and the network returns no taus"):
        quantile_q_learning()(without_taus, transition())
    with pytest.raises(ValueError, match=r"kappa -1\.0 must be 0 or above"):
        quantile_q_learning(-1.0)
    for make in (q_learning, quantile_q_learning):
        with pytest.raises(ValueError, match="double has no effect with munchausen"):
            make(double=True, munchausen=Munchausen())


def minimise(loss, start, steps=4000, rate=0.05):
    """Return what gradient descent with decreasing steps finds."""

    def step(x, i):
        return x - rate / (1 + i / 400) * jax.grad(loss)(x), None

    return jax.lax.scan(step, start, jnp.arange(steps, dtype=jnp.float32))[0]


def test_quantile_regression_recovers_the_quantiles_of_a_known_distribution():
    samples = jnp.asarray(np.random.default_rng(0).exponential(size=400), jnp.float32)
    taus = (jnp.arange(8, dtype=jnp.float32) + 0.5) / 8
    found = jax.jit(lambda: minimise(lambda q: quantile_huber_loss(q, taus, samples, 0.0), jnp.zeros(8), rate=0.2))()
    np.testing.assert_allclose(found, np.quantile(np.asarray(samples), np.asarray(taus)), atol=0.06)
