"""Statistics among the parameters: they are applied, kept, and never trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdqn.agent.making import make_agent
from jaxdqn.config import Config
from jaxdqn.networks.apply import make_q_values
from jaxdqn.networks.dueling import DuelingMLP
from jaxdqn.normalisation import OBS_STATS, freeze_obs_stats, init_params, put_obs_stats
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.types import Rows

pytestmark = pytest.mark.usefixtures("strict_promotion")

STATS = ObservationStats(np.array([1.0, -2.0], np.float32), np.array([0.5, 4.0], np.float32))
OBS = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)), jnp.float32)
NETWORK = DuelingMLP(3)


@pytest.mark.implicit_promotion
def test_q_values_equal_the_network_on_normalised_observations():
    plain = init_params(NETWORK, jax.random.key(0), (2,), None)
    assert OBS_STATS not in plain
    q_values = make_q_values(NETWORK)
    np.testing.assert_array_equal(q_values(plain, OBS), NETWORK.apply(plain, OBS).q_values)
    expected = NETWORK.apply(plain, (OBS - STATS.mean) / STATS.std).q_values
    np.testing.assert_allclose(q_values(put_obs_stats(plain, STATS), OBS), expected, rtol=1e-5)
    made = init_params(NETWORK, jax.random.key(0), (2,), STATS)
    np.testing.assert_allclose(q_values(made, OBS), expected, rtol=1e-5)


def test_statistics_have_no_gradient_and_no_weight_decay():
    params = init_params(NETWORK, jax.random.key(0), (2,), STATS)
    gradient = jax.grad(lambda params: make_q_values(NETWORK)(params, OBS).sum())(params)
    assert not any(np.any(x) for x in jax.tree.leaves(gradient[OBS_STATS]))
    plain = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(1.0))
    optimizer = freeze_obs_stats(plain)
    steps, _ = optimizer.update(gradient, optimizer.init(params), params)
    assert not any(np.any(x) for x in jax.tree.leaves(steps[OBS_STATS]))
    trained, gradients = {"params": params["params"]}, {"params": gradient["params"]}
    expected, _ = plain.update(gradients, plain.init(trained), trained)
    jax.tree.map(np.testing.assert_array_equal, steps["params"], expected["params"])


@pytest.mark.implicit_promotion
@pytest.mark.parametrize("given", [pytest.param(None, marks=pytest.mark.long), STATS])
def test_learning_keeps_the_statistics_and_other_statistics_use_the_same_program(given):
    config = Config(
        pixels=False, total_frames=64, num_envs=2, batch_size=8, updates_per_batch=2, capacity=64, warmup_frames=32
    )
    agent = make_agent(config, num_actions=3, obs_shape=(2,), obs_dtype=np.float32, obs_stats=given)
    rng = np.random.default_rng(0)
    flags = np.zeros((32, 2), bool)
    rows = Rows(
        obs=rng.normal(size=(32, 2, 2)).astype(np.float32),
        action=rng.integers(0, 3, (32, 2)).astype(np.int32),
        reward=np.ones((32, 2), np.float32),
        terminated=flags,
        last=flags,
        episode_step=np.broadcast_to(np.arange(32, dtype=np.int32)[:, None], (32, 2)),
    )
    state = agent.observe(agent.init(jax.random.key(0)), rows)
    agent.internals.compile(state)
    before = jax.device_get(state.learner.params)
    state, _ = agent.learn(state)
    after = jax.device_get(state.learner.params)
    assert not np.array_equal(before["params"]["Dense_0"]["kernel"], after["params"]["Dense_0"]["kernel"])
    if given is None:
        assert OBS_STATS not in after
        return
    for tree in (state.learner.params, state.learner.target_params, state.actor.params):
        np.testing.assert_array_equal(tree[OBS_STATS]["mean"], STATS.mean)
        np.testing.assert_array_equal(tree[OBS_STATS]["std"], STATS.std)
    other = put_obs_stats(state.learner.params, ObservationStats(STATS.mean + 1, STATS.std))
    assert not np.allclose(agent.q_values(other, OBS), agent.q_values(state.learner.params, OBS))
    programs = [agent.q_values.lower(params, OBS).as_text() for params in (other, state.learner.params)]
    assert programs[0] == programs[1]
