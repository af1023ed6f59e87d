"""One update of a linear network computed by hand, Adam against NumPy, tracing and donation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from updates import ONLINE, TARGET, hand_batch, hand_learner, linear, random_problem, two_layers

from jaxdqn.averaging import polyak_update, polynomial_average
from jaxdqn.learner import init_learner, make_optimizer, make_update
from jaxdqn.objectives.losses import huber_loss
from jaxdqn.objectives.q_learning import q_learning
from jaxdqn.types import Sample


def numpy_adam(params, gradients, learning_rate, weight_decay, max_norm):
    """Kingma and Ba's algorithm 1, with the L2 term in the gradient as in `torch.optim.Adam(weight_decay=...)`."""
    mean, square = np.zeros_like(params), np.zeros_like(params)
    for step, gradient in enumerate(gradients, start=1):
        norm = np.sqrt((gradient**2).sum())
        if max_norm is not None and norm > max_norm:
            gradient = gradient * max_norm / norm
        gradient = gradient + weight_decay * params
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        params = params - learning_rate * mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return params


def optax_steps(optimizer, params, gradients):
    """Optimise the same vector as two leaves, so that the global norm differs from the norm of a leaf."""
    tree = {"a": jnp.asarray(params[:2], jnp.float32), "b": jnp.asarray(params[2:], jnp.float32)}
    state = optimizer.init(tree)
    for gradient in gradients:
        leaves = {"a": jnp.asarray(gradient[:2], jnp.float32), "b": jnp.asarray(gradient[2:], jnp.float32)}
        steps, state = optimizer.update(leaves, state, tree)
        tree = optax.apply_updates(tree, steps)
    return np.concatenate([tree["a"], tree["b"]])


PARAMS = np.array([1.0, -2.0, 0.5])
GRADIENTS = np.array([[3.0, 0.0, 4.0], [0.1, 0.3, -0.2], [-1.0, 2.0, 2.0]])  # norms 5, 0.37 and 3


def test_polyak_moves_the_target_by_tau_towards_the_parameters():
    params = {"w": jnp.array([1.0, 2.0]), "b": jnp.array(8.0)}
    target = {"w": jnp.array([5.0, 2.0]), "b": jnp.array(0.0)}
    moved = polyak_update(params, target, 0.25)
    np.testing.assert_allclose(moved["w"], [4.0, 2.0], rtol=1e-7)  # 0.75 * 5 + 0.25 * 1
    np.testing.assert_allclose(moved["b"], 2.0, rtol=1e-7)


@pytest.mark.parametrize("power", [0.0, 1.0, 8.0])
def test_a_polynomial_average_has_the_weights_of_its_power(power):
    history = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    average = {"w": jnp.full(3, 1e6)}  # what it was before the first update has no weight
    for index, params in enumerate(history):
        average = polynomial_average({"w": jnp.asarray(params)}, average, jnp.int32(index + 1), power)
    # The weight of update i is (1 + p) / (i + p), times (j - 1) / (j + p) for each later update j.
    weights = [
        (1 + power) / (i + power) * np.prod([(j - 1) / (j + power) for j in range(i + 1, 201)]) for i in range(1, 201)
    ]
    assert sum(weights) == pytest.approx(1)
    np.testing.assert_allclose(average["w"], weights @ history, atol=2e-3)
    if power == 0:
        np.testing.assert_allclose(average["w"], history.mean(axis=0), atol=2e-3)
    assert np.sum(np.arange(1, 201) * weights) / 200 == pytest.approx((1 + power) / (2 + power), abs=0.01)


def test_an_average_keeps_the_dtype_of_each_leaf():
    half = {"w": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(2)}
    average = polynomial_average(half, half, jnp.int32(5))
    assert [average[name].dtype for name in ("w", "b")] == [jnp.bfloat16, jnp.float32]


def test_an_update_averages_its_new_parameters():
    optimizer = optax.sgd(0.1)
    update = make_update(linear, q_learning(double=False), optimizer, tau=0.25)
    learner = init_learner({"w": jnp.array(ONLINE)}, optimizer, average=True)
    learner.params["w"].block_until_ready()
    first = update(learner, Sample(hand_batch()))[0]
    one = np.array(first.params["w"])
    np.testing.assert_array_equal(first.average_params["w"], one)  # of one update
    second = update(first, Sample(hand_batch()))[0]
    two = np.array(second.params["w"])
    np.testing.assert_allclose(second.average_params["w"], 0.1 * one + 0.9 * two, rtol=1e-5)  # 9 / (2 + 8) is new
    assert init_learner({"w": jnp.array(ONLINE)}, optimizer).average_params is None
    greedy = [second.greedy_params(which) for which in ("online", "target", "average")]
    assert greedy == [second.params, second.target_params, second.average_params]


@pytest.mark.parametrize("max_norm", [None, 1.0, 3.5])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_three_steps_equal_adam_with_decay_in_the_clipped_gradient(weight_decay, max_norm):
    # Steps of 0.01: larger ones show the float32 rounding of Adam's 1 - 0.999^t.
    expected = numpy_adam(PARAMS, GRADIENTS, 0.01, weight_decay, max_norm)
    result = optax_steps(make_optimizer(0.01, weight_decay, max_norm), PARAMS, GRADIENTS)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
    if max_norm is not None:
        assert np.abs(result - numpy_adam(PARAMS, GRADIENTS, 0.01, weight_decay, None)).max() > 1e-4


def test_decay_is_coupled_as_in_torch_adam_and_not_adamw():
    result = optax_steps(make_optimizer(0.01, 0.5), PARAMS, GRADIENTS)
    decoupled = optax_steps(optax.adamw(0.01, weight_decay=0.5), PARAMS, GRADIENTS)
    assert np.abs(result - decoupled).max() > 1e-3


def test_a_new_target_is_a_copy_of_the_parameters():
    params = {"w": jnp.array(ONLINE)}
    learner = init_learner(params, optax.adam(0.1))
    assert learner.num_updates == 0
    params["w"].delete()
    np.testing.assert_array_equal(learner.target_params["w"], ONLINE)


@pytest.mark.parametrize(
    ("double", "loss", "gradient"),
    [
        # y = [1 + 0.5 * 4, 0.5], delta = [2, -0.5]; loss (4 + 0.25) / 2; dloss/dw of the action taken -2 delta / 2.
        (False, 2.125, [[-2.0, 0.0], [0.0, 0.5]]),
        # The online values [3, 1] choose action 0, which the target values at 2: y = [2, 0.5], delta = [1, -0.5].
        (True, 0.625, [[-1.0, 0.0], [0.0, 0.5]]),
    ],
    ids=["single", "double"],
)
def test_an_update_equals_the_one_computed_by_hand(double, loss, gradient):
    optimizer = optax.sgd(0.1)
    update = make_update(linear, q_learning(double=double), optimizer, tau=0.25)
    learner, metrics, priority = update(hand_learner(optimizer), Sample(hand_batch()))
    new = ONLINE - 0.1 * np.array(gradient)
    np.testing.assert_allclose(learner.params["w"], new, rtol=1e-6)
    # The target moves after the step, towards the new parameters; towards the old ones, 0.05 would be missing.
    np.testing.assert_allclose(learner.target_params["w"], 0.75 * TARGET + 0.25 * new, rtol=1e-6)
    assert metrics.keys() == {"loss", "gradient_norm", "q_value"}
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(gradient), rtol=1e-6)
    np.testing.assert_allclose(metrics["q_value"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(priority, [1.0 if double else 2.0, 0.5], rtol=1e-6)


def test_the_loss_is_the_one_given():
    optimizer = optax.sgd(0.1)
    update = make_update(linear, q_learning(huber_loss), optimizer, tau=0.0)
    _, metrics, _ = update(hand_learner(optimizer), Sample(hand_batch()))
    np.testing.assert_allclose(metrics["loss"], (1.5 + 0.125) / 2, rtol=1e-6)  # delta = [2, -0.5]


def test_the_gradient_norm_reported_is_the_one_before_clipping():
    optimizer = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0))
    update = make_update(linear, q_learning(), optimizer, tau=0.0)
    learner, metrics, _ = update(hand_learner(optimizer), Sample(hand_batch()))
    np.testing.assert_allclose(metrics["gradient_norm"], 4.25**0.5, rtol=1e-6)  # of [-2, 0.5]
    np.testing.assert_allclose(np.linalg.norm(learner.params["w"] - ONLINE), 0.1, rtol=1e-5)


@pytest.mark.parametrize(("size", "double"), [(1, True), (4, False)])
def test_micro_batches_give_the_update_of_the_whole_batch(size, double):
    optimizer = optax.sgd(0.1)

    def run(micro_batch_size):
        params, batch = random_problem()
        objective = q_learning(double=double)
        update = make_update(two_layers, objective, optimizer, tau=0.5, micro_batch_size=micro_batch_size)
        return update(init_learner(params, optimizer), Sample(batch, weight=jnp.arange(1.0, 9.0)))

    (*found, found_priorities), (*wanted, wanted_priorities) = run(size), run(None)
    # Gradients of order 1 are summed in another order: atol is their float32 rounding, for parameters near 0.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), found, wanted)
    # Priorities are differences of values up to 2, where a step of float32 is 2.4e-7.
    np.testing.assert_allclose(found_priorities, wanted_priorities, rtol=1e-6, atol=2.4e-7)


def test_adams_epsilon_is_the_one_given():
    steps = [make_optimizer(0.1, epsilon=epsilon) for epsilon in (1e-8, 1.0)]
    moved = [optax_steps(optimizer, PARAMS, GRADIENTS[:1]) - PARAMS for optimizer in steps]
    # After one step Adam's moments are the gradient and its square: lr * g / (|g| + epsilon).
    np.testing.assert_allclose(moved[0], -0.1 * np.sign(GRADIENTS[0]), atol=1e-5)
    np.testing.assert_allclose(moved[1], -0.1 * GRADIENTS[0] / (np.abs(GRADIENTS[0]) + 1), atol=1e-5)


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused():
    params, batch = random_problem()
    update = make_update(two_layers, q_learning(), optax.sgd(0.1), tau=0.5, micro_batch_size=3)
    with pytest.raises(ValueError, match="micro_batch_size 3 does not divide batch_size 8"):
        update(init_learner(params, optax.sgd(0.1)), Sample(batch))


def test_the_update_is_traced_once_and_counts_its_calls():
    traces = 0

    def counted(params, obs, keys):
        nonlocal traces
        traces += 1  # runs in Python only while the update is traced
        return linear(params, obs, keys)

    optimizer = make_optimizer(0.1)
    update, learner = make_update(counted, q_learning(), optimizer, tau=0.25), hand_learner(optimizer)
    seen = []
    for _ in range(4):
        learner, *_ = update(learner, Sample(hand_batch()))
        seen.append(traces)
    assert seen[0] > 0
    assert seen == [seen[0]] * 4
    assert learner.num_updates == 4
    assert learner.num_updates.dtype == jnp.int32


def test_a_donated_learner_cannot_be_used_again():
    optimizer = make_optimizer(0.1)
    update, old = make_update(linear, q_learning(), optimizer, tau=0.25), hand_learner(optimizer)
    update(old, Sample(hand_batch()))
    with pytest.raises((RuntimeError, ValueError), match=r"deleted|donated"):
        update(old, Sample(hand_batch()))
    assert old.params["w"].is_deleted()
    assert old.target_params["w"].is_deleted()
