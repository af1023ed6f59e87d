"""The whole agent, through the real loop, on environments whose values are known by hand."""

import jax
import numpy as np
import optax
import probes
import pytest

from jaxdqn.agent import make_agent
from jaxdqn.config import Config
from jaxdqn.envs.vector import Collector, make_vector_env
from jaxdqn.run.host_loop import host_loop

GAMMA = 0.8


def learned_values(env_class, observations, **changes):
    """Train on a probe and return the action values of some observations."""
    fields = {
        "pixels": False,
        "total_frames": 2560,
        "num_envs": 8,
        "frames_per_batch": 64,
        "batch_size": 64,
        "updates_per_batch": 32,
        "capacity": 2560,
        "warmup_frames": 512,
        "gamma": GAMMA,
        "n_steps": 3,
        "tau": 0.05,
        "learning_rate": 3e-3,
        "weight_decay": 0.0,
        "reward_scale": 1.0,
        "epsilon_start": 1.0,
        "epsilon_end": 1.0,
        **changes,
    }
    config = Config(**fields)
    agent = make_agent(
        config,
        num_actions=2,
        obs_shape=(2,),
        obs_dtype=np.float32,
        optimizer=optax.adam(optax.linear_schedule(config.learning_rate, 0.0, 1024)),
    )
    envs = make_vector_env(env_class, config.num_envs)
    *_, progress = host_loop(agent, agent.init(jax.random.key(0)), Collector(envs, seed=0), config)
    envs.close()
    assert progress.updates == 1056  # 33 of 40 batches lie beyond the warm-up
    return np.asarray(agent.q_values(progress.state.learner.params, np.asarray(observations, np.float32)))


def test_one_step_of_reward_one_is_worth_one():
    assert learned_values(probes.OneStep, [[1, -1], [-1, -1]]) == pytest.approx(np.ones((2, 2)), abs=0.03)


def test_value_follows_the_observation():
    values = learned_values(probes.ObservationValue, [[1, -1], [-1, -1]])
    assert values == pytest.approx(np.array([[1.0, 1.0], [-1.0, -1.0]]), abs=0.05)


@pytest.mark.parametrize("double", [False, True])
def test_value_follows_the_action(double):
    values = learned_values(probes.ActionValue, [[1, -1], [-1, -1]], double=double)
    assert values == pytest.approx(np.array([[-1.0, 1.0], [-1.0, 1.0]]), abs=0.05)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_delayed_reward_is_discounted_once(n_steps):
    values = learned_values(probes.Delayed, [[1, -1], [1, 0]], n_steps=n_steps)
    assert values == pytest.approx(np.array([[GAMMA, GAMMA], [1.0, 1.0]]), abs=0.05)


def test_chain_that_terminates_is_worth_the_steps_left():
    values = learned_values(probes.TerminatingChain, [[1, 2 * t / 10 - 1] for t in (0, 5, 7, 9)])
    wanted = [(1 - GAMMA**left) / (1 - GAMMA) for left in (10, 5, 3, 1)]
    assert values.mean(axis=1) == pytest.approx(np.array(wanted), abs=0.12)


def test_chain_that_is_truncated_is_worth_an_endless_one():
    values = learned_values(probes.TruncatedChain, [[1, 0]], n_steps=3)
    assert values == pytest.approx(np.full((1, 2), 1 / (1 - GAMMA)), abs=0.12)
