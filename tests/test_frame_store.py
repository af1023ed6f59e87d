"""Frames on the host and on disk: the samples that the device gives, and what is refused."""

import dataclasses
import errno
import os
import threading

import jax
import numpy as np
import optax
import probes
import pytest

import jaxdqn
from jaxdqn.config import Config
from jaxdqn.frame_store import FrameStore, check_store, with_frame_store
from jaxdqn.types import Rows

CONFIG = Config(
    frame_size=36,
    frame_stack=3,
    total_frames=400,
    num_envs=2,
    frames_per_batch=16,
    batch_size=8,
    updates_per_batch=6,
    capacity=61,  # 30 slots: not a multiple of what is added at a time
    warmup_frames=32,
    n_steps=2,
)
SIZES = {"capacity": CONFIG.capacity, "num_envs": CONFIG.num_envs, "obs_shape": (36, 36), "obs_dtype": np.uint8}


def rows_of(batch):
    """Rows of episodes of seven steps, every frame another."""
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


@pytest.fixture
def make(tmp_path):
    """Builds an agent of some storage, and closes the stores that it built."""
    stores = []

    def build(storage, **changes):
        config = dataclasses.replace(CONFIG, replay_storage=storage, **changes)
        # With plain gradient descent parameters differ as little as gradients do.
        agent = jaxdqn.make_agent(
            config, num_actions=2, obs_shape=(36, 36), obs_dtype=np.uint8, optimizer=optax.sgd(1e-3)
        )
        if storage != "device":
            stores.append(FrameStore(**SIZES, path=tmp_path / "replay.npy" if storage == "disk" else None))
            agent = with_frame_store(agent, stores[-1], updates=config.updates_per_batch, stacked=True)
        return agent, agent.init(jax.random.key(0))

    yield build
    for store in stores:
        store.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("storage", ["host", "disk"])
@pytest.mark.parametrize("pixels", [0, 3])
def test_the_same_key_gives_the_samples_that_the_device_gives_also_after_the_ring_has_wrapped(make, storage, pixels):
    there, elsewhere = make("device", random_shift=pixels), make(storage, random_shift=pixels)
    for batch in range(9):
        there = there[0], there[0].observe(there[1], rows_of(batch))
        elsewhere = elsewhere[0], elsewhere[0].observe(elsewhere[1], rows_of(batch))
        if batch < 2:
            continue
        expected = there[0].sample(there[1].replay, jax.random.key(batch))
        sampled = elsewhere[0].sample(elsewhere[1].replay, jax.random.key(batch))
        assert sampled.obs.shape == (6, 8, 36, 36, 3)
        assert sampled.obs.dtype == np.uint8
        for name in expected._fields:
            assert np.array_equal(getattr(expected, name), getattr(sampled, name)), name


def test_it_learns_what_the_device_learns_and_the_device_holds_no_frames(make):
    ends = {}
    for storage in ("device", "disk"):
        agent, state = make(storage)
        for batch in range(4):
            state = agent.observe(state, rows_of(batch))
        state, _ = agent.learn(state)
        state, metrics = agent.learn(state)
        ends[storage] = state, metrics
    assert ends["disk"][1]["loss"].shape == (6,)
    np.testing.assert_allclose(ends["disk"][1]["loss"], ends["device"][1]["loss"], rtol=1e-4)
    for ours, theirs in zip(*(jax.tree.leaves(ends[name][0].actor.params) for name in ends), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert jax.tree.leaves(ends["disk"][0].replay.rows.obs)[0].nbytes == 60 * 4
    assert int(ends["disk"][0].learner.num_updates) == 12


def test_vectors_are_stored_as_they_are():
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
        samples.append(agent.sample(state.replay, jax.random.key(1)))
        store.close()
    assert samples[0].obs.shape == (6, 8, 3)
    assert all(np.array_equal(*leaves) for leaves in zip(*samples, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["host", "disk"])
@pytest.mark.parametrize("leave", [True, False])
@pytest.mark.filterwarnings("ignore:no agent.gif")
def test_a_run_keeps_its_frames_there_and_leaves_none(storage, leave, tmp_path):
    fields = {**CONFIG.to_dict(), "pixels": False, "total_frames": 96, "capacity": 96, "frames_per_batch": 16}
    config = Config(**{**fields, "replay_storage": storage, "collector": "async", "output": str(tmp_path / "run")})
    for step in jaxdqn.train(config, env_fn=probes.Delayed):
        if leave and step.progress.updates:
            break
    assert step.progress.updates == (6 if leave else 30)
    assert (tmp_path / "run" / "metrics.csv").exists()
    assert not (tmp_path / "run" / "replay.npy").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("replay", "collector"))]


def test_what_does_not_fit_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match=r"capacity 61 needs 77,768 bytes of replay and 9,999 are free: the largest"):
        check_store(**SIZES, bytes_available=9_999, where="disk")
    with pytest.raises(ValueError, match=r"9,999 are free: free some disk"):
        check_store(**SIZES, bytes_available=9_999, where="disk", smallest=12)
    check_store(**SIZES, bytes_available=77_768, where="disk")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match=r"replay of 77,760 bytes in .*: "):
        FrameStore(**SIZES, path=file / "replay.npy")


def test_a_run_whose_file_cannot_be_had_gives_its_folder_back(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    fields = {**CONFIG.to_dict(), "pixels": False, "replay_storage": "disk", "output": str(tmp_path / "run")}
    with pytest.raises(ValueError, match="No space left on device"):
        next(jaxdqn.train(Config(**fields), env_fn=probes.Delayed))
    assert not list(tmp_path.iterdir())


def test_where_blocks_cannot_be_reserved_they_are_written(monkeypatch, tmp_path):
    def refused(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refused)
    monkeypatch.setattr("jaxdqn.frame_store._remove", lambda path: None)
    monkeypatch.setattr("jaxdqn.frame_store._BLOCK", 10_000)
    store = FrameStore(**SIZES, path=tmp_path / "replay.npy")
    assert (tmp_path / "replay.npy").stat().st_blocks * 512 >= 77_760
    frames = np.arange(2 * 2 * 36 * 36, dtype=np.uint8).reshape(2, 2, 36, 36)
    assert np.array_equal(store.read(store.write(0, frames)), frames)
    assert not store.read(np.arange(4, 60)).any()
    store.close()


def test_without_its_store_an_agent_says_what_it_needs():
    config = dataclasses.replace(CONFIG, replay_storage="host")
    agent = jaxdqn.make_agent(config, num_actions=2, obs_shape=(36, 36), obs_dtype=np.uint8)
    with pytest.raises(ValueError, match="replay_storage 'host' needs the agent within with_frame_store"):
        agent.observe(agent.init(jax.random.key(0)), rows_of(0))


def test_a_file_that_exists_is_left_alone(tmp_path):
    path = tmp_path / "replay.npy"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"replay's file .* exists: name another"):
        FrameStore(**SIZES, path=path)
    assert path.read_text() == "mine"


def test_a_store_of_another_size_is_refused_before_it_is_written(make):
    _, state = make("host")
    other = FrameStore(**{**SIZES, "capacity": 40})
    config = dataclasses.replace(CONFIG, replay_storage="host")
    plain = jaxdqn.make_agent(config, num_actions=2, obs_shape=(36, 36), obs_dtype=np.uint8)
    wrong = with_frame_store(plain, other, updates=6, stacked=True)
    with pytest.raises(ValueError, match=r"a store of \(20, 2\) places is not the ring's \(30, 2\)"):
        wrong.observe(state, rows_of(0))
    other.close()
