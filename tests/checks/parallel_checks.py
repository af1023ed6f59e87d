"""Checks of agents and runs on four devices.

    PYTHONPATH=experiments:tests/helpers JAX_NUM_CPU_DEVICES=4 python3 tests/checks/parallel_checks.py

Arguments select groups: `short`, `medium`, `long`. `test_parallel.py` runs each group.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import optax
import parallel_updates as updates
import pmap_agent
import probes
import pytest
from small_runs import PIXELS, VECTORS, equal

import jaxdqn
from jaxdqn.algorithms import with_algorithm
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import make_vector_env
from jaxdqn.loops.assemble import make_device_run
from jaxdqn.loops.device_loop import device_loop
from jaxdqn.loops.host_loop import host_loop
from jaxdqn.parallel.mesh import devices_of, make_mesh
from jaxdqn.parallel.parallel_agent import agent_of, make_parallel_agent
from jaxdqn.replay.capacity import row_bytes
from jaxdqn.storage.free_memory import free_bytes

SGD_VECTORS = {"obs_shape": (4,), "obs_dtype": np.float32, "optimizer": optax.sgd(1e-3)}
FRAMES = dataclasses.replace(PIXELS, num_envs=4, frames_per_batch=20, updates_per_batch=1)


def run_of(num_devices, env=probes.TerminatingChain, frames=640):
    config = dataclasses.replace(VECTORS, num_devices=num_devices, total_frames=frames)
    agent = agent_of(config, num_actions=2, obs=jaxdqn.ObsSpec((2,), np.float32))
    envs = make_vector_env(env, config.num_envs)
    steps = list(host_loop(agent, agent.init(jax.random.key(0)), Collector(envs, seed=0), config))
    envs.close()
    return agent, steps


def counters_are_equal_on_one_two_and_four_devices():
    found = set()
    for num_devices in (1, 2, 4):
        agent, steps = run_of(num_devices)
        batch = jax.eval_shape(agent.sample, steps[-1].state.replay, jax.random.key(0)).batch
        counts = tuple((step.frames, step.updates, round(step.epsilon, 6)) for step in steps)
        found.add((counts, batch.action.shape, int(steps[-1].state.replay.size), agent.learning_start))
        rows = np.asarray(steps[-1].state.replay.rows.episode_step)
        assert rows.shape == (32, 8)
        assert set(np.unique(rows)) == set(range(11))
    assert len(found) == 1, found


def parameters_stay_equal_on_all_devices_and_learn_the_value():
    agent, steps = run_of(4, env=probes.OneStep, frames=4_100)
    learner = steps[-1].state.learner
    assert int(learner.num_updates) >= 1_000
    for leaf in jax.tree.leaves(learner):
        parts = devices_of(leaf)
        assert len(parts) == 4
        assert all(np.array_equal(parts[0], part) for part in parts[1:])
    ring = devices_of(steps[-1].state.replay.rows.obs)
    assert [part.shape for part in ring] == [(32, 2, 2)] * 4
    assert not all(np.array_equal(ring[0], part) for part in ring[1:])  # each device has its own environments
    values = np.asarray(agent.q_values(learner.params, np.array([[1.0, -1.0], [-1.0, -1.0]], np.float32)))
    assert np.allclose(values, 1.0, atol=0.1), values


def devices_draw_different_samples():
    agent, steps = run_of(4)
    batch = agent.sample(steps[-1].state.replay, jax.random.key(0)).batch
    parts = devices_of(batch.obs)
    assert [part.shape for part in parts] == [(4, 4, 2)] * 4
    assert len({part.tobytes() for part in parts}) == 4
    obs = np.zeros((8, 2), np.float32)
    _, actions = agent.act(steps[0].state.actor, obs)
    assert actions.shape == (8,)


def draw_followed_by_augment_equals_sample():
    """Each device has its own keys, and `draw` passes all of them on."""
    stats = jaxdqn.ObservationStats(np.full(2, 100.0), np.full(2, 50.0))
    config = dataclasses.replace(FRAMES, random_shift=4, updates_per_batch=2)
    agent, _ = updates.agents(config, num_actions=2, obs_shape=(44, 44), obs_dtype=np.uint8, obs_stats=stats)
    ring = agent.init(jax.random.key(0)).replay
    rng = np.random.default_rng(0)
    shape = ring.rows.action.shape
    rows = jaxdqn.Rows(
        obs=rng.integers(0, 255, (*shape, 44, 44), np.uint8),
        action=rng.integers(0, 2, shape, np.int32),
        reward=rng.normal(size=shape).astype(np.float32),
        terminated=np.zeros(shape, bool),
        last=np.zeros(shape, bool),
        episode_step=np.broadcast_to(np.arange(shape[0], dtype=np.int32)[:, None], shape).copy(),
    )
    assert not agent.replay.can_sample(ring)
    ring = agent.replay.add(ring, rows)
    assert agent.replay.can_sample(ring)
    key = jax.random.key(1)
    windows, keys = agent.internals.draw(ring, key)
    assert keys.shape == (2, 4)
    assert len({part.tobytes() for part in devices_of(jax.random.key_data(keys))}) == 4
    batch = agent.sample(ring, key).batch
    assert equal(agent.internals.augment(keys, windows.batch), batch)
    assert not equal(windows.batch.obs, batch.obs)
    sampled = agent.replay.sample(ring, key).batch
    assert sampled.action.shape == windows.batch.action.shape == (2, config.batch_size)


def available_memory_is_that_of_all_devices_together():
    row = row_bytes((4,), np.float32)
    how = {"num_actions": 2, "obs_shape": (4,), "obs_dtype": np.float32}
    assert make_parallel_agent(VECTORS, make_mesh(4), **how, bytes_available=64 * row + 8)
    with pytest.raises(ValueError, match=r"^capacity 256 needs .* the largest that fits is 232$"):
        make_parallel_agent(VECTORS, make_mesh(4), **how, bytes_available=60 * row)
    whole = dataclasses.replace(VECTORS, capacity=None)
    agent = make_parallel_agent(whole, make_mesh(4), **how, bytes_available=2 * 64 * row)
    assert agent.init(jax.random.key(0)).replay.rows.action.shape == (32, 8)  # half of each device's memory
    three = dict.fromkeys(("num_envs", "batch_size", "frames_per_batch"), 24) | {"num_devices": 3, "capacity": 240}
    how = {"env": probes.counting_env(4), "num_seeds": 2}
    fits = 2 * (240 * row_bytes((1,), np.float32) + 8)
    assert make_device_run(dataclasses.replace(VECTORS, **three), **how, bytes_available=fits)
    with pytest.raises(ValueError, match="replay of 2 seeds and"):
        make_device_run(dataclasses.replace(VECTORS, **three), **how, bytes_available=fits - 1)
    # The devices that a CPU is split into share one memory.
    assert 3.5 < free_bytes(1) / free_bytes(4) < 4.5


def device_loop_runs_on_all_devices():
    config = dataclasses.replace(VECTORS, num_devices=4, loop="device")
    run = make_device_run(config, env=probes.counting_env(3))
    *_, last = device_loop(run, run.init(jax.random.key(0)), config)
    assert (last.frames, last.updates) == (640, 148)
    rows = np.asarray(last.state.replay.rows.episode_step)
    assert all((np.diff(rows[:, env]) % 4 == 1).all() for env in range(8))


def pmap_trains_with_the_same_functions():
    config = dataclasses.replace(VECTORS, num_devices=4, loop="device")
    states, metrics = pmap_agent.train(config, 160)
    assert np.asarray(states.agent.learner.num_updates).tolist() == [28] * 4
    for leaf in map(np.asarray, jax.tree.leaves(states.agent.learner)):
        assert all(np.array_equal(leaf[0], part) for part in leaf)
    places = np.asarray(states.cursor.obs)
    assert len({part.tobytes() for part in places}) == 4
    assert np.isfinite(metrics["loss"]).all()


def run_on_four_devices_resumes_bit_for_bit():
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(with_algorithm(VECTORS, "rainbow"), num_devices=4)
        whole, part = (dataclasses.replace(config, output=str(Path(folder) / name)) for name in "ab")
        *_, wanted = jaxdqn.train(whole)
        steps = jaxdqn.train(part)
        while next(steps).progress.frames < 400:
            pass
        steps.close()
        *_, found = jaxdqn.resume(part.output)
        assert equal(wanted.progress.state, found.progress.state)


SHORT = (
    updates.update_matches_one_device_and_needs_one_all_reduce,
    devices_draw_different_samples,
    draw_followed_by_augment_equals_sample,
    available_memory_is_that_of_all_devices_together,
)
MEDIUM = (
    updates.update_of_frames_matches_one_device_and_needs_one_all_reduce,
    updates.update_of_rainbow_matches_one_device_and_needs_one_all_reduce,
    updates.priorities_of_four_devices_weigh_samples_like_those_of_one_ring,
    device_loop_runs_on_all_devices,
    pmap_trains_with_the_same_functions,
    parameters_stay_equal_on_all_devices_and_learn_the_value,
)
LONG = (
    updates.update_of_colours_matches_one_device_and_needs_one_all_reduce,
    updates.update_of_m_iqn_matches_one_device_and_needs_one_all_reduce,
    counters_are_equal_on_one_two_and_four_devices,
    run_on_four_devices_resumes_bit_for_bit,
)

GROUPS = {"short": SHORT, "medium": MEDIUM, "long": LONG}

if __name__ == "__main__":
    for group in sys.argv[1:] or GROUPS:
        for check in GROUPS[group]:
            check()
            print(check.__name__, flush=True)
