"""The host loop: which parameters collect each batch, counts, compilation, errors, and workers."""

import itertools
import threading
import time
from types import SimpleNamespace

import gymnasium as gym
import jax
import numpy as np
import probes
import pytest

from jaxdqn.agent.making import make_agent
from jaxdqn.config import Config
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import make_vector_env
from jaxdqn.envs.vector.workers import WorkerError
from jaxdqn.loops.host_loop import host_loop

both = pytest.mark.parametrize("collector", ["sync", "async"])
CONFIG = Config(
    pixels=False,
    total_frames=60,
    num_envs=2,
    frames_per_batch=10,
    batch_size=4,
    updates_per_batch=1,
    capacity=60,
    warmup_frames=20,
    n_steps=1,
)


def run(collector, env_class=probes.Delayed, record=None, workers=False):
    """Yield a loop's progress on a probe; `record(batch, params)` receives the parameters of a batch's first action."""
    config = Config(**{**CONFIG.to_dict(), "collector": collector})
    agent = make_agent(config, num_actions=2, obs_shape=(2,), obs_dtype=np.float32)
    if record is not None:
        act = agent.act

        def recording(actor, obs):
            if int(actor.frame) % 10 == 0:
                record(int(actor.frame) // 10, jax.device_get(actor.params))
            return act(actor, obs)

        agent = agent._replace(act=recording)
    envs = make_vector_env(env_class, config.num_envs, workers=workers)
    try:
        yield from host_loop(agent, agent.init(jax.random.key(0)), Collector(envs, seed=0), config)
    finally:
        envs.close()


def equal(tree, other):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True))


@both
def test_a_batch_is_collected_with_the_newest_parameters_or_those_one_batch_older(collector):
    acted, learned = {}, {}
    for batch, progress in enumerate(run(collector, record=acted.__setitem__)):
        learned[batch] = jax.device_get(progress.state.learner.params)
    assert not equal(learned[1], learned[2])
    lag = {"sync": 1, "async": 2}[collector]
    for batch in range(6):
        # Batches 0 and 1 are the warm-up; the first update follows batch 1.
        assert equal(acted[batch], learned[max(batch - lag, 0)]), batch


@both
def test_counts_and_rows_are_the_same_for_both_collectors(collector):
    progress = list(run(collector))
    assert [step.frames for step in progress] == [10, 20, 30, 40, 50, 60]
    assert [step.updates for step in progress] == [0, 1, 2, 3, 4, 5]
    # An episode is two steps and a final observation; a batch is 5 steps of 2 environments: 30 rows of each in all.
    assert sum(len(step.episodes) for step in progress) == 20
    end = progress[-1].state
    assert int(end.actor.frame) == 60
    assert end.replay.rows.episode_step[:, 0].tolist() == [0, 1, 2] * 10


@both
def test_the_same_seed_gives_the_same_run(collector):
    ends = [list(run(collector))[-1].state for _ in range(2)]
    assert equal(ends[0].learner, ends[1].learner)
    assert equal(ends[0].replay, ends[1].replay)


def test_closing_the_loop_ends_its_thread():
    loop = run("async")
    next(loop)
    assert any(thread.name.startswith("collector") for thread in threading.enumerate())
    loop.close()
    assert not any(thread.name.startswith("collector") for thread in threading.enumerate())


@pytest.fixture
def compiled():
    """Return a list that grows with each program that JAX compiles or loads from now on."""
    programs = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            programs.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return programs


def test_compile_compiles_the_programs_that_the_loop_runs(compiled):
    agent = make_agent(CONFIG, num_actions=2, obs_shape=(2,), obs_dtype=np.float32)
    state = agent.init(jax.random.key(0))
    agent.internals.compile(state)
    ahead = len(compiled)
    assert ahead >= 3
    actor, _ = agent.act(state.actor, np.zeros((2, 2), np.float32))
    agent.learn(state._replace(actor=actor))
    assert len(compiled) == ahead


@both
def test_nothing_is_compiled_after_the_first_updates(collector, compiled):
    counts = [len(compiled) for _ in run(collector)]
    assert counts[1] > 0  # collecting is compiled in the first batch, and learning in the second
    assert counts[2:] == counts[1:2] * 4


class Broken(probes.Delayed):
    """An environment that raises in its seventh step."""

    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 7:
            raise ArithmeticError("broken in step 7")
        return super().step(action)


@both
def test_an_error_of_an_environment_reaches_the_caller(collector):
    with pytest.raises(ArithmeticError, match="broken in step 7"):
        list(run(collector, Broken))


@pytest.mark.slow
def test_workers_give_the_same_rows_as_one_process_and_end_on_close():
    one_process = list(run("async"))[-1].state
    with_workers = list(run("async", workers=True))[-1].state
    assert equal(one_process.replay, with_workers.replay)
    envs = make_vector_env(probes.Delayed, 2, workers=True)
    processes = list(envs.processes)
    assert all(process.is_alive() for process in processes)
    envs.close()
    assert not any(process.is_alive() for process in processes)


@pytest.mark.slow
def test_a_worker_that_does_not_answer_raises(monkeypatch):
    monkeypatch.setattr("jaxdqn.envs.vector.workers.STEP_TIMEOUT", 0.2)
    envs = make_vector_env(Hanging, 2, workers=True)
    envs.reset(seed=0)
    processes = list(envs.processes)
    with pytest.raises(WorkerError, match=r"environment 0 \(action 1\) and .* 1 \(action 0\) has not answered"):
        envs.step(np.array([1, 0]))
    assert not any(process.is_alive() for process in processes)
    envs.close()


class Slow(probes.Delayed):
    def step(self, action):
        time.sleep(1.2)
        return super().step(action)


@pytest.mark.slow
def test_time_during_which_the_machine_slept_does_not_count_for_the_timeout_of_a_worker(monkeypatch):
    """After Ctrl-Z for two minutes, or if a laptop was closed, the workers slept as well."""
    clock = itertools.count(step=500.0)
    monkeypatch.setattr("jaxdqn.envs.vector.workers.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr("jaxdqn.envs.vector.workers.STEP_TIMEOUT", 5.0)
    envs = make_vector_env(Slow, 1, workers=True)
    envs.reset(seed=0)
    envs.step(np.array([1]))
    envs.close()


@pytest.mark.slow
def test_a_killed_worker_raises_an_error_that_names_it_and_ends_the_others():
    envs = make_vector_env(probes.Delayed, 2, workers=True)
    envs.reset(seed=0)
    processes = list(envs.processes)
    processes[1].kill()
    processes[1].join()
    with pytest.raises(WorkerError, match=r"environment 1 \(action 0\) has lost its process"):
        envs.step(np.zeros(2, int))
    envs.close()
    assert not any(process.is_alive() for process in processes)


class Hanging(gym.Env):
    """An environment whose step never returns."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        threading.Event().wait()
