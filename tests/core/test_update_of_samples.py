"""Updates of samples: importance weights, target copies, an objective's metrics, noise and quantile fractions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from updates import ONLINE, TARGET, hand_batch, hand_learner, linear, random_problem, two_layers

from jaxdqn.learner import init_learner, make_update
from jaxdqn.networks.apply import make_apply
from jaxdqn.networks.dueling import DuelingMLP
from jaxdqn.networks.outputs import ImplicitQuantiles
from jaxdqn.objectives.q_learning import q_learning
from jaxdqn.objectives.quantile import quantile_q_learning
from jaxdqn.types import Sample


def test_the_gradient_is_that_of_the_weighted_loss_divided_by_the_largest_weight():
    optimizer = optax.sgd(0.1)
    update = make_update(linear, q_learning(), optimizer, tau=0.25)
    sample = Sample(hand_batch(), weight=jnp.array([8.0, 2.0]))
    learner, metrics, priority = update(hand_learner(optimizer), sample)
    # As by hand above, times 1 and 1/4: loss (4 + 0.25 / 4) / 2, gradients -2 and 0.5 / 4.
    np.testing.assert_allclose(metrics["loss"], 2.03125, rtol=1e-6)
    np.testing.assert_allclose(learner.params["w"], ONLINE - 0.1 * np.array([[-2.0, 0.0], [0.0, 0.125]]), rtol=1e-6)
    np.testing.assert_allclose(priority, [2.0, 0.5], rtol=1e-6)  # of the unweighted errors


def test_importance_weights_with_beta_1_give_the_uniform_gradient_on_average():
    """Summed over all rows, probability times weighted gradient, before the division, is the mean gradient."""
    params, batch = random_problem()
    optimizer = optax.sgd(1.0)
    update = jax.jit(make_update(two_layers, q_learning(), optimizer, tau=0.0))

    def gradient(sample):
        learner, *_ = update(init_learner(jax.tree.map(jnp.copy, params), optimizer), sample)
        return jax.tree.map(lambda old, new: np.asarray(old - new), params, learner.params)

    probability = np.arange(1.0, 9.0) / 36
    weight = 1 / (8 * probability)
    total = jax.tree.map(np.zeros_like, params)
    for row in range(8):
        one = gradient(Sample(jax.tree.map(lambda x, row=row: x[row : row + 1], batch)))
        total = jax.tree.map(lambda x, y, row=row: x + probability[row] * weight[row] * y, total, one)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), total, gradient(Sample(batch)))


def test_with_a_target_period_the_target_is_copied_every_so_many_updates():
    optimizer = optax.sgd(0.1)
    update, learner = jax.jit(make_update(linear, q_learning(), optimizer, target_period=3)), hand_learner(optimizer)
    for count in range(1, 8):
        learner, *_ = update(learner, Sample(hand_batch()))
        if count < 3:
            np.testing.assert_array_equal(learner.target_params["w"], TARGET)
        elif count % 3 == 0:
            copied = np.asarray(learner.params["w"])
        if count >= 3:
            np.testing.assert_array_equal(learner.target_params["w"], copied)
    for wrong, says in (
        ({"target_period": 0}, "target_period 0 must be at least 1"),
        ({"tau": 1.5}, "tau 1.5 must be"),
    ):
        with pytest.raises(ValueError, match=says):
            make_update(linear, q_learning(), optimizer, **wrong)


def test_metrics_of_an_objective_are_logged_as_means():
    def objective(estimates, batch):
        loss, priority, _ = q_learning()(estimates, batch)
        return loss, priority, {"reward": batch.reward}

    optimizer = optax.sgd(0.1)
    _, metrics, _ = make_update(linear, objective, optimizer)(hand_learner(optimizer), Sample(hand_batch()))
    np.testing.assert_allclose(metrics["reward"], 0.75)


def test_noise_moves_an_update_and_its_deviations_learn():
    """Same key, same update; another key, another update. Deviations move, as mean weights do."""
    network = DuelingMLP(2, hidden=(8, 8), noisy_sigma=0.5)
    apply, optimizer, (_, batch) = make_apply(network), optax.sgd(0.1), random_problem()
    params = jax.jit(network.init)(jax.random.key(0), batch.obs)
    update = jax.jit(make_update(apply, q_learning(double=True), optimizer, tau=0.5))

    def after(key):
        learner = init_learner(jax.tree.map(jnp.copy, params), optimizer)
        return update(learner, Sample(batch), key)[0].params

    first, again, other = after(jax.random.key(1)), after(jax.random.key(1)), after(jax.random.key(2))
    moved = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), first, params)["params"]
    heads = moved["DuelingHeads_0"]
    assert all(layer["kernel_sigma"] > 1e-6 and layer["kernel"] > 1e-6 for layer in heads.values())
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), first, again))
    assert not jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), first, other))
    without_key = after(None)["params"]["DuelingHeads_0"]  # mean weights have no gradient of deviations
    deviation = params["params"]["DuelingHeads_0"]["value_output"]["kernel_sigma"]
    np.testing.assert_array_equal(without_key["value_output"]["kernel_sigma"], deviation)


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.long)])
def test_micro_batches_have_the_noise_and_the_fractions_of_the_whole_batch(size):
    network = DuelingMLP(2, hidden=(8, 8), noisy_sigma=0.5, output=ImplicitQuantiles(cosines=4))
    apply, optimizer, (_, batch) = make_apply(network, num_taus=3), optax.sgd(0.1), random_problem()
    params = jax.jit(network.init)(jax.random.key(0), batch.obs)

    def run(micro_batch_size):
        update = make_update(apply, quantile_q_learning(), optimizer, tau=0.5, micro_batch_size=micro_batch_size)
        learner = init_learner(jax.tree.map(jnp.copy, params), optimizer)
        return jax.jit(update)(learner, Sample(batch, weight=jnp.arange(1.0, 9.0)), jax.random.key(3))

    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), run(size), run(None))
