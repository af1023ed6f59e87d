"""C51 and HL-Gauss against brute-force NumPy models, and rlax on random inputs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import SUPPORT, categorical, random_estimates, rlax, transition
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdqn.objectives.categorical import categorical_q_learning, project
from jaxdqn.objectives.hl_gauss import hl_gauss_q_learning

pytestmark = [
    pytest.mark.usefixtures("strict_promotion"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:rlax"),
]


def brute_force_projection(values, probabilities, support):
    """Give each atom's probability to its two neighbours, by their distance, one at a time."""
    found, spacing = np.zeros(len(support)), support[1] - support[0]
    for value, probability in zip(values, probabilities, strict=True):
        place = (np.clip(value, support[0], support[-1]) - support[0]) / spacing
        low = min(int(np.floor(place)), len(support) - 2)
        found[low] += probability * (low + 1 - place)
        found[low + 1] += probability * (place - low)
    return found


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    reward=st.sampled_from([0.0, 0.5, -0.5, 1.0, 7.0, -9.0, 0.13]),
    discount=st.sampled_from([0.0, 0.5, 0.97, 1.0]),
)
def test_the_projection_keeps_all_mass_and_equals_a_loop_and_rlax(seed, reward, discount):
    probabilities = np.random.default_rng(seed).dirichlet(np.full(len(SUPPORT), 0.3)).astype(np.float32)
    values = (np.float32(reward) + np.float32(discount) * SUPPORT).astype(np.float32)
    found = project(jnp.asarray(values), jnp.asarray(probabilities), jnp.asarray(SUPPORT))
    np.testing.assert_allclose(found, brute_force_projection(values, probabilities, SUPPORT), atol=2e-6)
    np.testing.assert_allclose(found.sum(), 1.0, atol=2e-6)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = rlax.categorical_l2_project(jnp.asarray(values), jnp.asarray(probabilities), jnp.asarray(SUPPORT))
    np.testing.assert_allclose(found, theirs, atol=2e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("double", [False, True])
def test_c51_equals_rlax(seed, double):
    estimates = random_estimates(seed, 3, len(SUPPORT), categorical)
    batch = transition(action=seed % 3, reward=seed - 2.0, discount=0.9 if seed else 0.0)
    loss, priority, metrics = categorical_q_learning(jnp.asarray(SUPPORT), double=double)(estimates, batch)
    atoms, online, following = jnp.asarray(SUPPORT), estimates.online.dist, estimates.next_target.dist
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        args = (atoms, online, batch.action, batch.reward, batch.discount, atoms, following)
        if double:
            expected = rlax.categorical_double_q_learning(*args, estimates.next_online.q_values)
        else:
            expected = rlax.categorical_q_learning(*args)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert priority == loss
    assert 0 <= metrics["mass_at_ends"] <= 1 + 1e-6


def test_mass_at_the_ends_and_outside_is_noticed():
    estimates = random_estimates(0, 3, len(SUPPORT), categorical)
    objective = categorical_q_learning(jnp.asarray(SUPPORT))
    inside, outside, at_the_end = (
        objective(estimates, transition(reward=r, discount=d))[2] for r, d in ((0.0, 0.1), (50.0, 0.1), (3.0, 0.0))
    )
    assert inside["mass_at_ends"] < 1e-6
    assert inside["mass_outside"] == 0
    np.testing.assert_allclose(outside["mass_at_ends"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(outside["mass_outside"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(at_the_end["mass_at_ends"], 1.0, rtol=1e-5)
    assert at_the_end["mass_outside"] == 0


def test_hl_gauss_is_the_cross_entropy_to_the_gaussians_mass_in_each_bin():
    estimates = random_estimates(2, 3, len(SUPPORT), categorical)
    loss, priority, metrics = hl_gauss_q_learning(jnp.asarray(SUPPORT), sigma=0.75)(estimates, transition(action=2))
    width = SUPPORT[1] - SUPPORT[0]
    target = 0.5 + 0.9 * float(estimates.next_target.q_values.max())
    mass = np.zeros(len(SUPPORT))
    for index, centre in enumerate(SUPPORT):
        low, high = (math.erf((centre + side * width / 2 - target) / (2**0.5 * 0.75 * width)) for side in (-1, 1))
        mass[index] = high - low
    expected = -np.sum(mass / mass.sum() * np.asarray(jax.nn.log_softmax(estimates.online.dist[2])))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(priority, abs(target - estimates.online.q_values[2]), rtol=1e-5)
    assert metrics["mass_outside"] == 0
    outside = hl_gauss_q_learning(jnp.asarray(SUPPORT))(estimates, transition(reward=50.0))
    assert outside[2]["mass_outside"] == 1
    assert np.isfinite(outside[0])
