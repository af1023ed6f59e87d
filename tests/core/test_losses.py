import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdqn.objectives.losses import LOSSES, huber_loss, q_learning_td_error, squared_loss

pytestmark = pytest.mark.usefixtures("strict_promotion")


def floats(*values):
    return jnp.array(values, jnp.float32)


def scalar(value):
    return jnp.asarray(value, jnp.float32)


Q_VALUES = floats(1.0, 2.0, 3.0)
NEXT_Q_TARGET = floats(4.0, 6.0, 5.0)  # the target network prefers action 1
NEXT_Q_SELECTOR = floats(0.0, 1.0, 7.0)  # the online network prefers action 2
ACTION = jnp.int32(1)


def td_error(q_values=Q_VALUES, reward=0.5, discount=0.75, next_q_target=NEXT_Q_TARGET, selector=None):
    return q_learning_td_error(q_values, ACTION, scalar(reward), scalar(discount), next_q_target, selector)


def test_plain_q_learning_takes_the_largest_target_value():
    assert td_error() == 3.0  # 0.5 + 0.75 * 6 - 2


def test_double_q_learning_takes_the_target_value_of_the_selected_action():
    assert td_error(selector=NEXT_Q_SELECTOR) == 2.25  # 0.5 + 0.75 * 5 - 2


def test_a_selector_equal_to_the_target_changes_nothing():
    assert td_error(selector=NEXT_Q_TARGET) == td_error()


@pytest.mark.parametrize("selector", [None, NEXT_Q_SELECTOR], ids=["plain", "double"])
def test_discount_0_ignores_the_next_values(selector):
    assert td_error(discount=0.0, selector=selector) == -1.5  # 0.5 - 2
    assert td_error(discount=0.0, next_q_target=floats(-1e6, 1e6, 7.0), selector=selector) == -1.5


@pytest.mark.parametrize("double", [False, True], ids=["plain", "double"])
def test_no_gradient_flows_into_the_target(double):
    def loss(reward, discount, next_q_target, selector):
        return squared_loss(td_error(Q_VALUES, reward, discount, next_q_target, selector if double else None))

    inputs = (scalar(0.5), scalar(0.75), NEXT_Q_TARGET, NEXT_Q_SELECTOR)
    for gradient in jax.grad(loss, argnums=(0, 1, 2, 3))(*inputs):
        np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


def test_no_gradient_flows_into_the_target_if_one_network_gives_both_values():
    # Online and target network are the same array here: only -q_values[action] may be differentiated.
    gradient = jax.grad(lambda q: td_error(q, next_q_target=q, selector=q))(Q_VALUES)
    np.testing.assert_array_equal(gradient, [0.0, -1.0, 0.0])


def test_the_gradient_reaches_only_the_value_of_the_action():
    gradient = jax.grad(lambda q: squared_loss(td_error(q)))(Q_VALUES)
    np.testing.assert_array_equal(gradient, [0.0, -6.0, 0.0])  # d(3^2)/dq = -2 * 3


def test_vmap_gives_each_sample_its_own_error():
    errors = jax.vmap(q_learning_td_error)(
        jnp.stack([Q_VALUES, Q_VALUES, Q_VALUES]),
        jnp.array([0, 1, 2], jnp.int32),
        floats(0.5, 0.5, -1.0),
        floats(0.75, 0.0, 1.0),
        jnp.stack([NEXT_Q_TARGET, NEXT_Q_TARGET, floats(-1.0, -2.0, -3.0)]),
        jnp.stack([NEXT_Q_SELECTOR, NEXT_Q_SELECTOR, floats(0.0, 1.0, 0.0)]),
    )
    # 0.5 + 0.75 * 5 - 1, 0.5 - 2, -1 + 1 * -2 - 3
    np.testing.assert_array_equal(errors, [3.25, -1.5, -6.0])


@pytest.mark.parametrize(("error", "loss"), [(0.0, 0.0), (0.5, 0.25), (3.0, 9.0), (-3.0, 9.0)])
def test_squared_loss_has_no_half(error, loss):
    assert squared_loss(scalar(error)) == loss


@pytest.mark.parametrize(
    ("error", "loss", "slope"),
    [
        (0.0, 0.0, 0.0),
        (0.5, 0.125, 0.5),  # inside, a half of the square
        (-0.5, 0.125, -0.5),
        (1.0, 0.5, 1.0),  # both branches have the same value and slope here
        (-1.0, 0.5, -1.0),
        (3.0, 2.5, 1.0),  # outside, a straight line of slope 1
        (-3.0, 2.5, -1.0),
    ],
)
def test_huber_loss_is_quadratic_up_to_1_and_linear_above(error, loss, slope):
    assert huber_loss(scalar(error)) == loss
    assert jax.grad(huber_loss)(scalar(error)) == slope


@pytest.mark.parametrize(("name", "expected"), [("squared", [0.25, 4.0]), ("huber", [0.125, 1.5])])
def test_losses_are_found_by_name_and_can_be_mapped(name, expected):
    np.testing.assert_array_equal(jax.vmap(LOSSES[name])(floats(0.5, -2.0)), expected)
