"""The whole agent in the real loop, on environments whose action values are calculated by hand."""

import jax
import numpy as np
import optax
import probes
import pytest

from jaxdqn.agent.making import make_agent
from jaxdqn.config import Config
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import make_vector_env
from jaxdqn.loops.host_loop import host_loop
from jaxdqn.preprocessing import ObservationStats

GAMMA = 0.8


def learned_values(env_class, observations, **changes):
    """Train on a probe environment and return the action values of some observations."""
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
    envs = make_vector_env(env_class, config.num_envs)
    agent = make_agent(
        config,
        num_actions=2,
        obs_shape=envs.single_observation_space.shape,
        obs_dtype=envs.single_observation_space.dtype,
        obs_stats=ObservationStats(np.float32(0), np.float32(1)) if config.pixels else None,
        optimizer=optax.adam(optax.linear_schedule(config.learning_rate, 0.0, 32 * config.updates_per_batch)),
    )
    collector = Collector(envs, seed=0, frame_stack=config.frame_stack if config.pixels else None)
    *_, progress = host_loop(agent, agent.init(jax.random.key(0)), collector, config)
    envs.close()
    assert progress.updates == 33 * config.updates_per_batch  # 33 of 40 batches come after the warm-up
    obs = np.asarray(observations, envs.single_observation_space.dtype)
    return np.asarray(agent.q_values(progress.state.learner.params, obs))


@pytest.mark.long
def test_one_step_with_reward_one_has_value_one():
    assert learned_values(probes.OneStep, [[1, -1], [-1, -1]]) == pytest.approx(np.ones((2, 2)), abs=0.03)


@pytest.mark.long
def test_value_follows_the_observation():
    values = learned_values(probes.ObservationValue, [[1, -1], [-1, -1]])
    assert values == pytest.approx(np.array([[1.0, 1.0], [-1.0, -1.0]]), abs=0.05)


@pytest.mark.long
@pytest.mark.parametrize("double", [False, True])
def test_value_follows_the_action(double):
    values = learned_values(probes.ActionValue, [[1, -1], [-1, -1]], double=double)
    assert values == pytest.approx(np.array([[-1.0, 1.0], [-1.0, 1.0]]), abs=0.05)


@pytest.mark.parametrize("n_steps", [pytest.param(1, marks=pytest.mark.long), 3])
def test_delayed_reward_is_discounted_once(n_steps):
    values = learned_values(probes.Delayed, [[1, -1], [1, 0]], n_steps=n_steps)
    assert values == pytest.approx(np.array([[GAMMA, GAMMA], [1.0, 1.0]]), abs=0.05)


@pytest.mark.several
def test_the_value_of_a_terminating_chain_counts_the_steps_left():
    values = learned_values(probes.TerminatingChain, [[1, 2 * t / 10 - 1] for t in (0, 5, 7, 9)])
    wanted = [(1 - GAMMA**left) / (1 - GAMMA) for left in (10, 5, 3, 1)]
    assert values.mean(axis=1) == pytest.approx(np.array(wanted), abs=0.12)


@pytest.mark.several
def test_the_value_of_a_truncated_chain_is_that_of_an_endless_one():
    values = learned_values(probes.TruncatedChain, [[1, 0]], n_steps=3)
    assert values == pytest.approx(np.full((1, 2), 1 / (1 - GAMMA)), abs=0.12)


@pytest.mark.long
def test_mirroring_teaches_the_values_of_images_never_shown():
    """Training shows only bars on the left, where action 0 gives 1; mirror images teach the bar on the right."""
    left = np.repeat(probes.Bar.frame[None, ..., None], 2, axis=-1)
    pixels = {"pixels": True, "frame_size": 44, "frame_stack": 2, "updates_per_batch": 4, "batch_size": 16}
    values = learned_values(probes.Bar, np.concatenate([left, left[:, :, ::-1]]), mirror=True, **pixels)
    assert values == pytest.approx(np.array([[1.0, -1.0], [-1.0, 1.0]]), abs=0.1)
