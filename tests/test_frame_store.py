"""Frames in host memory and on disk: samples equal those of frames on the device, and invalid stores are refused."""

import dataclasses
import errno
import os
import threading
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import probes
import pytest

import jaxdqn
from jaxdqn.config import Config
from jaxdqn.frame_store import FrameStore, with_frame_store
from jaxdqn.observations import ObsSpec
from jaxdqn.replay.capacity import check_capacity
from jaxdqn.types import Rows

CONFIG = Config(
    frame_size=36,
    frame_stack=3,
    total_frames=400,
    num_envs=2,
    frames_per_batch=16,
    batch_size=8,
    updates_per_batch=6,
    capacity=61,  # 30 slots: not a multiple of the 8 that are added at a time
    warmup_frames=32,
    n_steps=2,
)
SIZES = {"capacity": CONFIG.capacity, "num_envs": CONFIG.num_envs, "obs_shape": (36, 36), "obs_dtype": np.uint8}


def rows_of(batch):
    """Return rows of episodes of seven steps, with a different frame in each."""
    steps = np.arange(batch * 8, batch * 8 + 8)
    episode_step = np.broadcast_to(steps[:, None] % 7, (8, 2)).astype(np.int32)
    numbers = np.random.default_rng(batch)
    return Rows(
        obs=numbers.integers(0, 256, (8, 2, 36, 36), dtype=np.uint8),
        action=numbers.integers(0, 2, (8, 2)).astype(np.int32),
        reward=numbers.normal(size=(8, 2)).astype(np.float32),
        terminated=episode_step == 6,
        last=episode_step == 6,
        episode_step=episode_step,
    )


@lru_cache  # an agent is pure: its programs are compiled once
def agent_of(config):
    # With plain gradient descent, parameters differ no more than gradients do.
    return jaxdqn.make_agent(config, num_actions=2, obs_shape=(36, 36), obs_dtype=np.uint8, optimizer=optax.sgd(1e-3))


@pytest.fixture
def make(tmp_path):
    """Return a function that builds an agent with some storage; its stores are closed after the test."""
    stores = []

    def build(storage, **changes):
        config = dataclasses.replace(CONFIG, replay_storage=storage, **changes)
        agent = agent_of(dataclasses.replace(config, replay_storage="device" if storage == "device" else "host"))
        if storage != "device":
            stores.append(FrameStore(**SIZES, path=tmp_path / "replay.npy" if storage == "disk" else None))
            agent = with_frame_store(agent, stores[-1], updates=config.updates_per_batch, stacked=True)
        return agent, agent.init(jax.random.key(0))

    yield build
    for store in stores:
        store.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("storage", "pixels"), [("host", 3), ("disk", 0)])
def test_samples_equal_those_of_frames_on_the_device_even_after_the_ring_has_wrapped(make, storage, pixels):
    changes = {"random_shift": pixels, "prioritized": pixels > 0}
    (agent, state), (stored, stored_state) = make("device", **changes), make(storage, **changes)
    for batch in range(9):
        state = agent.observe(state, rows_of(batch))
        stored_state = stored.observe(stored_state, rows_of(batch))
        if batch < 2:
            continue
        if pixels:  # priorities of both, so that the next samples are not uniform
            index = jnp.arange(60)
            priority = jnp.asarray(np.random.default_rng(batch).exponential(size=60), jnp.float32)
            state = state._replace(replay=agent.replay.update_priorities(state.replay, index, priority))
            changed = stored.replay.update_priorities(stored_state.replay, index, priority)
            stored_state = stored_state._replace(replay=changed)
        expected = agent.sample(state.replay, jax.random.key(batch), 0.5)
        sampled = stored.sample(stored_state.replay, jax.random.key(batch), 0.5)
        assert sampled.batch.obs.shape == (6, 8, 36, 36, 3)
        assert sampled.batch.obs.dtype == np.uint8
        for name in ("obs", "action", "reward", "discount", "next_obs"):
            assert np.array_equal(getattr(expected.batch, name), getattr(sampled.batch, name)), name
        assert np.array_equal(expected.index, sampled.index)
        assert np.array_equal(expected.weight, sampled.weight)
        assert (len(np.unique(sampled.weight)) > 1) == (pixels > 0)


def test_learning_matches_frames_on_the_device_and_the_device_holds_no_frames(make):
    ends = {}
    for storage in ("device", "disk"):
        agent, state = make(storage, prioritized=True, random_shift=3)
        for batch in range(4):
            state = agent.observe(state, rows_of(batch))
        state, _ = agent.learn(state)
        state, metrics = agent.learn(state)
        ends[storage] = state, metrics
    assert ends["disk"][1]["loss"].shape == (6,)
    np.testing.assert_allclose(ends["disk"][1]["loss"], ends["device"][1]["loss"], rtol=1e-4)
    for ours, theirs in zip(*(jax.tree.leaves(ends[name][0].actor.params) for name in ends), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    priorities = [ends[name][0].replay.priorities for name in ends]
    for ours, theirs in zip(*priorities, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert len(np.unique(priorities[0].weights)) > 10
    assert jax.tree.leaves(ends["disk"][0].replay.rows.obs)[0].nbytes == 60 * 4
    assert int(ends["disk"][0].learner.num_updates) == 12


def test_samples_of_vectors_equal_those_on_the_device():
    config = dataclasses.replace(CONFIG, pixels=False, capacity=60, replay_storage="host")
    samples = []
    for storage in ("device", "host"):
        changed = dataclasses.replace(config, replay_storage=storage)
        agent = jaxdqn.make_agent(changed, num_actions=2, obs_shape=(3,), obs_dtype=np.float32)
        store = FrameStore(capacity=60, num_envs=2, obs_shape=(3,), obs_dtype=np.float32)
        if storage == "host":
            agent = with_frame_store(agent, store, updates=config.updates_per_batch, stacked=False)
        state = agent.init(jax.random.key(0))
        for batch in range(3):
            rows = rows_of(batch)
            state = agent.observe(state, rows._replace(obs=rows.obs[:, :, :3, 0].astype(np.float32)))
        samples.append(agent.sample(state.replay, jax.random.key(1)).batch)
        store.close()
    assert samples[0].obs.shape == (6, 8, 3)
    assert all(np.array_equal(*leaves) for leaves in zip(*samples, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("storage", "leave"), [("host", True), ("disk", False)])
@pytest.mark.filterwarnings("ignore:no agent.gif")
def test_run_leaves_no_frame_file_and_no_thread_behind(storage, leave, tmp_path):
    fields = {**CONFIG.to_dict(), "pixels": False, "total_frames": 96, "capacity": 96, "frames_per_batch": 16}
    config = Config(**{**fields, "replay_storage": storage, "collector": "async", "output": str(tmp_path / "run")})
    for step in jaxdqn.train(config, env_fn=probes.Delayed):
        if leave and step.progress.updates:
            break
    assert step.progress.updates == (6 if leave else 30)
    assert (tmp_path / "run" / "metrics.csv").exists()
    assert not (tmp_path / "run" / "replay.npy").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("replay", "collector"))]


def test_store_that_does_not_fit_is_refused(tmp_path):
    on_disk = dataclasses.replace(CONFIG, replay_storage="disk")
    obs = ObsSpec((36, 36), np.uint8, CONFIG.frame_stack)
    with pytest.raises(
        ValueError, match=r"capacity 61 needs 77,768 bytes of .* 29,999 are free: the largest that fits is 22"
    ):
        check_capacity(on_disk, obs, 29_999)
    with pytest.raises(ValueError, match=r"9,999 are free: free some disk"):
        check_capacity(on_disk, obs, 9_999)
    check_capacity(on_disk, obs, 77_768)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match=r"replay of 77,760 bytes cannot be allocated in .*: "):
        FrameStore(**SIZES, path=file / "replay.npy")


def test_run_whose_frame_file_cannot_be_allocated_leaves_no_folder(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    fields = {**CONFIG.to_dict(), "pixels": False, "replay_storage": "disk", "output": str(tmp_path / "run")}
    with pytest.raises(ValueError, match="No space left on device"):
        next(jaxdqn.train(Config(**fields), env_fn=probes.Delayed))
    assert not list(tmp_path.iterdir())


def test_blocks_that_cannot_be_reserved_are_written(monkeypatch, tmp_path):
    def refused(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refused)
    monkeypatch.setattr("jaxdqn.frame_store._remove", lambda path: None)
    monkeypatch.setattr("jaxdqn.frame_store._WRITE_BYTES", 10_000)
    store = FrameStore(**SIZES, path=tmp_path / "replay.npy")
    assert (tmp_path / "replay.npy").stat().st_blocks * 512 >= 77_760
    frames = np.arange(2 * 2 * 36 * 36, dtype=np.uint8).reshape(2, 2, 36, 36)
    assert np.array_equal(store.read(store.write(0, frames)), frames)
    assert not store.read(np.arange(4, 60)).any()
    store.close()


def test_agent_without_its_store_raises_an_error_that_names_with_frame_store():
    config = dataclasses.replace(CONFIG, replay_storage="host")
    agent = jaxdqn.make_agent(config, num_actions=2, obs_shape=(36, 36), obs_dtype=np.uint8)
    with pytest.raises(ValueError, match="replay_storage 'host' needs an agent from with_frame_store"):
        agent.observe(agent.init(jax.random.key(0)), rows_of(0))


def test_existing_file_is_refused_and_not_changed(tmp_path):
    path = tmp_path / "replay.npy"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"replay file .* already exists: choose another name"):
        FrameStore(**SIZES, path=path)
    assert path.read_text() == "mine"


def test_store_of_another_size_is_refused(make):
    _, state = make("host")
    other = FrameStore(**{**SIZES, "capacity": 40})
    config = dataclasses.replace(CONFIG, replay_storage="host")
    plain = jaxdqn.make_agent(config, num_actions=2, obs_shape=(36, 36), obs_dtype=np.uint8)
    wrong = with_frame_store(plain, other, updates=6, stacked=True)
    with pytest.raises(ValueError, match=r"the frame store has shape \(20, 2\) and the ring \(30, 2\)"):
        wrong.observe(state, rows_of(0))
    other.close()
