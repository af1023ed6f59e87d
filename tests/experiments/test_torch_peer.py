"""The peer of `throughput.py` computes the same update as ours. Needs the extra `bench`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdqn
from jaxdqn.presets import PRESETS
from jaxdqn.types import Batch, Sample

torch = pytest.importorskip("torch")
FIELDS = {"batch_size": 8, "updates_per_batch": 3, "capacity": 1000, "weight_decay": 0.1, "tau": 0.02}


def as_torch(params):
    """Return our parameters with PyTorch's names and layouts."""
    ours = jax.device_get(params)["params"]
    found = {}
    for index, layer in enumerate((0, 2, 4)):
        found[f"features.{layer}.weight"] = ours[f"Conv_{index}"]["kernel"].transpose(3, 2, 0, 1)
        found[f"features.{layer}.bias"] = ours[f"Conv_{index}"]["bias"]
    heads = ours["DuelingHeads_0"]
    # We flatten features with the channels last, and PyTorch with the channels first.
    first = heads["first"]["kernel"].reshape(12, 12, 64, 128).transpose(3, 2, 0, 1).reshape(128, -1)
    for index, name in enumerate(("advantage", "value")):
        half = slice(64 * index, 64 * index + 64)
        found[f"{name}.0.weight"], found[f"{name}.0.bias"] = first[half], heads["first"]["bias"][half]
        for layer, ours_name in ((2, f"{name}_1"), (4, f"{name}_output")):
            found[f"{name}.{layer}.weight"] = heads[ours_name]["kernel"].T
            found[f"{name}.{layer}.bias"] = heads[ours_name]["bias"]
    return {name: torch.tensor(np.array(value)) for name, value in found.items()}


def test_three_updates_of_the_peer_equal_three_of_ours(monkeypatch):
    from shared import torch_peer

    monkeypatch.setattr(torch_peer, "WEIGHT_DECAY", FIELDS["weight_decay"])
    monkeypatch.setattr(torch_peer, "TAU", FIELDS["tau"])

    config = jaxdqn.Config(**{**PRESETS["torchrl"].to_dict(), **FIELDS})
    stats = jaxdqn.ObservationStats(np.full(4, 0.5, np.float32), np.full(4, 0.25, np.float32))
    agent = jaxdqn.make_agent(config, num_actions=2, obs_shape=(64, 64), obs_dtype=np.uint8, obs_stats=stats)
    learner = agent.init(jax.random.key(0)).learner
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (2, 3, 8, 64, 64, 4), dtype=np.uint8)
    action, reward = rng.integers(0, 2, (3, 8), dtype=np.int32), rng.normal(size=(3, 8)).astype(np.float32)
    discount = np.full((3, 8), 0.95, np.float32)

    peer = torch_peer.Learner()
    assert sum(parameter.numel() for parameter in peer.network.parameters()) == 1_262_691
    before = as_torch(learner.params)
    for network in (peer.network, peer.target):
        network.load_state_dict(before)
    seen = torch.tensor(((obs / 255 - 0.5) / 0.25).astype(np.float32)).permute(0, 1, 2, 5, 3, 4)
    losses = []
    for index in range(3):
        numbers = [torch.tensor(values[index]) for values in (action.astype(np.int64), reward, discount)]
        losses.append(peer.update(seen[0, index], *numbers, seen[1, index]).item())

    batches = Batch(*map(jnp.asarray, (obs[0], action, reward, discount, obs[1])))
    learner, metrics, _ = agent.update(learner, Sample(batches))
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-4)
    for network, params in ((peer.network, learner.params), (peer.target, learner.target_params)):
        for name, value in as_torch(params).items():
            # Adam's first steps have the size of the learning rate for any gradient. If a gradient is only rounding
            # error, the sign of the step can differ: allow a few differences among many parameters.
            ours, theirs = value - before[name], network.state_dict()[name] - before[name]
            assert (theirs - ours).norm() < 0.02 * ours.norm(), name
