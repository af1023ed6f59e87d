"""A user's own network and objective: what does not fit the config is refused before anything is computed."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdqn
from jaxdqn.training.context import Overrides
from jaxdqn.training.resume_checks import check_overrides

pytestmark = pytest.mark.makes_agents


def agent_of(network=None, objective=None, action_masks=False, **changes):
    config = jaxdqn.Config(pixels=False, total_frames=64, warmup_frames=0, capacity=64, batch_size=8, **changes)
    return jaxdqn.make_agent(
        config,
        num_actions=3,
        obs_shape=(4,),
        obs_dtype=np.float32,
        network=network,
        objective=objective,
        action_masks=action_masks,
    )


def of_metrics(*names, uses_masks=False):
    """Return an objective that logs 0 by some names."""

    def objective(estimates, batch):
        value = estimates.next_target.q_values
        best = jnp.where(batch.next_mask, value, -jnp.inf).max() if uses_masks else value.max()
        error = batch.reward + batch.discount * jax.lax.stop_gradient(best) - estimates.online.q_values[batch.action]
        return error**2, jnp.abs(error), {name: jnp.zeros(()) for name in names}

    return objective


@pytest.mark.parametrize("name", ["loss", "q_value", "frames", "epsilon", "frames_per_second"])
def test_a_metric_with_the_name_of_another_column_is_refused(name):
    assert agent_of(objective=of_metrics("own")).internals.metric_names[-1] == "own"
    with pytest.raises(ValueError, match=f"the objective's metric '{name}' has the name of another column"):
        agent_of(objective=of_metrics("own", name))


def test_an_objective_may_read_masks():
    agent_of(objective=of_metrics(uses_masks=True), action_masks=True)


class OwnNoise(nn.Module):
    """A network that adds noise of its own to its values."""

    @nn.compact
    def __call__(self, obs):
        values = nn.Dense(3)(obs)
        return values + jax.random.normal(self.make_rng("noise"), (3,)) if self.has_rng("noise") else values


def test_exploration_by_noise_needs_a_network_with_noise():
    for network in (nn.Sequential([jaxdqn.NoisyDense(8), nn.relu, nn.Dense(3)]), OwnNoise()):
        agent = agent_of(network, noisy=True)
        actions = [agent.act(agent.init(jax.random.key(key)).actor, jnp.ones((8, 4)))[1] for key in range(8)]
        assert len({tuple(np.asarray(each)) for each in actions}) > 1
    with pytest.raises(ValueError, match="noisy needs a network with noise, and yours has none: use NoisyDense"):
        agent_of(nn.Dense(3), noisy=True)


def test_a_network_of_another_number_of_actions_is_refused():
    with pytest.raises(ValueError, match=r"returns action values \[N, 2\] and the environment has 3 actions"):
        agent_of(nn.Dense(2))


@pytest.mark.parametrize("network", [nn.Dense(3), nn.Sequential([nn.Dense(8), nn.Dense(3)])])
def test_a_network_for_iqn_takes_quantile_fractions(network):
    with pytest.raises(ValueError, match=r"iqn calls your network with quantile fractions \[N, T\] as its second"):
        agent_of(network, distribution="iqn")


@pytest.mark.parametrize("distribution", ["c51", "hl-gauss", "qr"])
def test_a_network_of_values_does_not_learn_a_distribution(distribution):
    with pytest.raises(ValueError, match="the objective needs a distribution and the network returns none"):
        agent_of(nn.Dense(3), distribution=distribution)


def test_a_resume_with_another_objective_of_this_package_says_so(tmp_path):
    (tmp_path / "versions.json").write_text('{"own": {"objective": "jaxdqn.losses.q_learning.<locals>.objective"}}')
    same = Overrides(objective=jaxdqn.q_learning()).definitions()
    assert check_overrides(tmp_path, same) == []  # its module has moved
    other = Overrides(objective=jaxdqn.quantile_q_learning()).definitions()
    (note,) = check_overrides(tmp_path, other)
    assert "objective was jaxdqn.losses.q_learning" in note
    assert "quantile_q_learning.<locals>.objective now: the results may differ" in note
    (tmp_path / "versions.json").write_text('{"own": {"loss": "jaxdqn.losses.huber_loss"}}')
    assert check_overrides(tmp_path, Overrides(loss=jaxdqn.huber_loss).definitions()) == []
    assert len(check_overrides(tmp_path, Overrides(loss=jaxdqn.squared_loss).definitions())) == 1


def test_fields_that_your_own_network_or_optimizer_replaces_are_named():
    config = jaxdqn.Config(pixels=False, layer_norm=True, distribution="qr", quantiles=8, adam_epsilon=1e-3)
    (note,) = Overrides(network=nn.Dense(3)).ignored_fields(config)
    assert note == "layer_norm True and quantiles 8 have no effect with your own network"
    (note,) = Overrides(optimizer=jaxdqn.make_optimizer(0.1)).ignored_fields(config)
    assert note == "adam_epsilon 0.001 has no effect with your own optimizer"
