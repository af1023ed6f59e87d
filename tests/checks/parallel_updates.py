"""Checks of updates on four devices; `parallel_checks.py` runs them."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
from small_runs import PIXELS, VECTORS

import jaxdqn
from jaxdqn.algorithms import with_algorithm
from jaxdqn.parallel.mesh import devices_of, make_mesh
from jaxdqn.parallel.parallel_agent import make_parallel_agent

SGD_VECTORS = {"obs_shape": (4,), "obs_dtype": np.float32, "optimizer": optax.sgd(1e-3)}
FRAMES = dataclasses.replace(PIXELS, num_envs=4, frames_per_batch=20, updates_per_batch=1)


def agents(config, **options):
    """Return the same agent on four devices, and on one."""
    return make_parallel_agent(config, make_mesh(4), **options), jaxdqn.make_agent(config, **options)


def a_batch(config, obs_shape, dtype):
    rng = np.random.default_rng(0)
    shape = (config.updates_per_batch, config.batch_size)
    scale = 1 if dtype == np.uint8 else 255
    obs, next_obs = (rng.integers(0, 255, (*shape, *obs_shape)) / scale for _ in range(2))
    return jaxdqn.Batch(
        obs=jnp.asarray(obs, dtype),
        action=jnp.asarray(rng.integers(0, 2, shape), jnp.int32),
        reward=jnp.asarray(rng.normal(size=shape), jnp.float32),
        discount=jnp.asarray(rng.random(shape), jnp.float32),
        next_obs=jnp.asarray(next_obs, dtype),
    )


def update_matches_one_device_and_needs_one_all_reduce():
    compare_updates(VECTORS, {"obs_shape": (4,), "obs_dtype": np.float32}, (4,))


def update_of_frames_matches_one_device_and_needs_one_all_reduce():
    stats = jaxdqn.ObservationStats(np.full(2, 100.0), np.full(2, 50.0))
    # SGD and not Adam: Adam's first step is the sign of the gradient, which for a few of a million is rounding error.
    frames = {"obs_shape": (44, 44), "obs_dtype": np.uint8, "obs_stats": stats, "optimizer": optax.sgd(1e-3)}
    compare_updates(FRAMES, frames, (44, 44, 2))


def update_of_colours_matches_one_device_and_needs_one_all_reduce():
    obs = jaxdqn.ObsSpec((12, 11, 3), np.uint8, 2, 9.0)
    config = dataclasses.replace(FRAMES, network="grid", mirror=False, random_shift=0)
    compare_updates(config, {"obs": obs, "optimizer": optax.sgd(1e-3)}, obs.seen_shape)


def update_of_rainbow_matches_one_device_and_needs_one_all_reduce():
    compare_updates(with_algorithm(VECTORS, "rainbow"), SGD_VECTORS, (4,))


def update_of_m_iqn_matches_one_device_and_needs_one_all_reduce():
    compare_updates(with_algorithm(VECTORS, "m-iqn"), SGD_VECTORS, (4,))


def priorities_of_four_devices_weigh_samples_like_those_of_one_ring():
    """A row's probability is that in the ring of its device, divided by the number of devices; N counts all rows."""
    config = dataclasses.replace(VECTORS, prioritized=True, updates_per_batch=8)
    agent, _ = agents(config, num_actions=2, **SGD_VECTORS)
    ring = agent.init(jax.random.key(0)).replay
    shape, rng = ring.rows.action.shape, np.random.default_rng(0)
    step = np.broadcast_to(np.arange(shape[0], dtype=np.int32)[:, None] % 7, shape)
    rows = jaxdqn.Rows(
        obs=rng.normal(size=(*shape, 4)).astype(np.float32),
        action=rng.integers(0, 2, shape, np.int32),
        reward=rng.normal(size=shape).astype(np.float32),
        terminated=step == 5,
        last=step == 6,
        episode_step=step.copy(),
    )
    ring = agent.replay.add(ring, rows)
    sample = agent.replay.sample(ring, jax.random.key(0))
    assert np.allclose(sample.weight, 1)  # all have the same priority, and each device as many rows
    priority = jnp.asarray(rng.exponential(size=sample.index.shape), jnp.float32)
    ring = agent.replay.update_priorities(ring, sample.index, priority)
    weights = [np.asarray(part).reshape(-1) for part in devices_of(ring.priorities.weights)]
    num_rows = sum(int((part > 0).sum()) for part in weights)
    assert np.asarray(ring.priorities.num_rows).sum() == num_rows
    sample = agent.replay.sample(ring, jax.random.key(1), 0.7)
    for part, index, weight in zip(weights, devices_of(sample.index), devices_of(sample.weight), strict=True):
        assert np.all(part[index] > 0)
        assert np.allclose(weight, (num_rows * part[index] / part.sum() / 4) ** -0.7, rtol=1e-4)
    assert len({float(part) for part in np.asarray(ring.priorities.largest)}) == 4  # each device has its own


def compare_updates(config, options, seen):
    four, one = agents(config, num_actions=2, **options)
    batch = a_batch(config, seen, options["obs"].dtype if "obs" in options else options["obs_dtype"])
    learner = one.init(jax.random.key(5)).learner
    weight = jnp.asarray(np.random.default_rng(1).uniform(0.1, 3, batch.action.shape), jnp.float32)
    sample, key = jaxdqn.Sample(batch, weight=weight), jax.random.split(jax.random.key(2), config.updates_per_batch)
    text = four.update.lower(learner, sample, key).compile().as_text()
    found, metrics, priority = four.update(jax.tree.map(jnp.copy, learner), sample, key)
    wanted, wanted_metrics, wanted_priority = one.update(learner, sample, key)
    assert np.allclose(priority, wanted_priority, rtol=1e-3, atol=1e-5)
    error = max(float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True))
    assert error < 1e-5, error
    assert np.allclose(metrics["loss"].mean(axis=1), wanted_metrics["loss"], rtol=1e-4)
    kinds = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all|collective-broadcast"
    collectives = re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text)
    assert {kind for _, kind in collectives} == {"all-reduce"}, collectives
    shapes = [shape for sizes, _ in collectives for shape in re.findall(r"f32\[([\d,]*)\]", sizes)]
    sent = sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)
    # Including the statistics of observations; and the largest weight of each device.
    size = sum(x.size for x in jax.tree.leaves(found.params)) + 4
    assert sent == size, (sent, size)
    assert len(collectives) == len(shapes) == 1, collectives
