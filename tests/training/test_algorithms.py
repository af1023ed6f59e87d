"""Every algorithm on both loops learns the values of all probe environments, and distributions that are known.

`-m long` runs all of it, in five minutes; the fast compilation of other tests takes longer here, so turn it off:

    JAX_COMPILATION_CACHE_DIR=/tmp/cache python3 -m pytest -m "long or several" tests/training/test_algorithms.py
"""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import GAMMA, TableEnv, all_probes, functional_env, lottery, optimal_values
from whole_runs import VECTORS, finish

from jaxdqn.agent.making import make_agent
from jaxdqn.algorithms import ALGORITHMS, with_algorithm
from jaxdqn.config import Config
from jaxdqn.distributions import num_taus
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import make_vector_env
from jaxdqn.loops.assemble import make_device_run
from jaxdqn.loops.host_loop import host_loop
from jaxdqn.networks.apply import make_apply
from jaxdqn.networks.architectures import make_network
from jaxdqn.objectives.objective import Munchausen
from jaxdqn.objectives.quantile import quantile_q_learning
from jaxdqn.observations import ObsSpec

CONFIG = Config(
    pixels=False,
    total_frames=4096,
    num_envs=16,
    frames_per_batch=64,
    batch_size=64,
    updates_per_batch=16,
    capacity=4096,
    warmup_frames=512,
    gamma=GAMMA,
    n_steps=1,
    tau=0.1,
    learning_rate=4e-3,
    learning_rate_end=1e-5,
    epsilon_start=1.0,
    epsilon_end=1.0,
)
PROBES = all_probes()


def learned_params(config, table, **overrides):
    """Train on a table and return an agent, and its parameters."""
    if config.loop == "device":
        run = make_device_run(config, env=functional_env(table), **overrides)
        state, _ = jax.jit(run.train)(run.init(jax.random.key(0)))
        return run.agent, state.agent.learner.params
    envs = make_vector_env(lambda: TableEnv(table), config.num_envs)
    space = envs.single_observation_space
    agent = make_agent(config, num_actions=2, obs=ObsSpec(space.shape, space.dtype), **overrides)
    *_, progress = host_loop(agent, agent.init(jax.random.key(0)), Collector(envs, seed=0), config)
    envs.close()
    return agent, progress.state.learner.params


SHORT = [("rainbow", "device"), ("qr", "host")]  # with m-iqn in tests/envs/test_action_masks.py every piece
CASES = [
    pytest.param(name, loop, marks=pytest.mark.several if (name, loop) in SHORT else pytest.mark.long)
    for name in ALGORITHMS
    for loop in ("device", "host")
]


@pytest.mark.parametrize(("name", "loop"), CASES)
def test_every_algorithm_learns_all_probe_environments(name, loop):
    config = with_algorithm(dataclasses.replace(CONFIG, loop=loop), name)
    if config.distribution == "qr":
        config = dataclasses.replace(config, quantiles=16)
    agent, params = learned_params(config, PROBES)
    found = agent.q_values(params, jnp.eye(PROBES.obs.shape[1]))
    wanted = optimal_values(PROBES, Munchausen() if config.munchausen else None)
    np.testing.assert_allclose(found, wanted, atol=0.15)


def distribution_of(config, **overrides):
    """Return the outputs of a network that has learned the lottery, at its two states."""
    _, params = learned_params(config, lottery(), **overrides)
    network = make_network(config, 2, ObsSpec((2,), np.float32))
    return network, make_apply(network, num_taus=num_taus(config)), params


LOTTERY = dataclasses.replace(CONFIG, loop="device", double=False)


@pytest.mark.several
def test_quantile_regression_recovers_the_quantiles_of_the_return():
    config = dataclasses.replace(LOTTERY, distribution="qr", quantiles=8)
    # Without the Huber loss's quadratic part, which moves quantiles by up to kappa.
    _, apply, params = distribution_of(config, objective=quantile_q_learning(0.0))
    outputs = apply(params, jnp.eye(2))
    assert outputs.dist.shape == (2, 2, 8)
    wanted = np.sort([first + GAMMA * second for first in (0, 8) for second in (-4, 0, 4, 12)])
    np.testing.assert_allclose(np.sort(outputs.dist[0, 0]), wanted, atol=0.8)
    np.testing.assert_allclose(np.sort(outputs.dist[1, 1]), np.repeat([-4, 0, 4, 12], 2), atol=0.8)


@pytest.mark.long
def test_implicit_quantiles_recover_the_quantiles_of_the_return():
    config = dataclasses.replace(LOTTERY, distribution="iqn", iqn_taus=16)
    network, _, params = distribution_of(config, objective=quantile_q_learning(0.0))
    taus = jnp.broadcast_to((jnp.arange(8) + 0.5) / 8, (2, 8))
    dist = network.apply(params, jnp.eye(2), taus).dist
    wanted = np.sort([first + GAMMA * second for first in (0, 8) for second in (-4, 0, 4, 12)])
    np.testing.assert_allclose(dist[0, 0], wanted, atol=1.6)
    np.testing.assert_allclose(dist[1, 1], np.repeat([-4, 0, 4, 12], 2), atol=1.6)


@pytest.mark.several
def test_c51_recovers_the_histogram_of_the_return():
    config = dataclasses.replace(LOTTERY, distribution="c51", atoms=41, v_min=-8.0, v_max=24.0)
    _, apply, params = distribution_of(config)
    found = jax.nn.softmax(apply(params, jnp.eye(2)).dist)
    support = np.linspace(-8, 24, 41)

    def histogram(returns):
        return np.array([np.mean(np.isclose(atom, returns)) for atom in support])

    second = np.array([-4.0, 0.0, 4.0, 12.0])
    np.testing.assert_allclose(found[1, 1], histogram(second), atol=0.05)
    np.testing.assert_allclose(found[0, 0], histogram(np.concatenate([GAMMA * second, 8 + GAMMA * second])), atol=0.05)


@pytest.mark.parametrize(("v_max", "count"), [(1.0, 1), pytest.param(None, 0, marks=pytest.mark.long)])
def test_a_run_warns_once_if_the_support_does_not_suit_the_returns(tmp_path, v_max, count):
    config = dataclasses.replace(VECTORS, total_frames=2_000, frames_per_batch=32, distribution="c51", v_max=v_max)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finish(config, tmp_path / "run")
    found = [str(warning.message) for warning in caught if "outside the support" in str(warning.message)]
    assert len(found) == count
    assert all("v_max 1" in message for message in found)
