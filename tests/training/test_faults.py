"""Faults that stop a run with a clear message: values that are not finite, and environments that fail."""

import os
import signal
import time

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from small_runs import CONFIG
from stopped_runs import config_in, finish, table

import jaxdqn
from jaxdqn.checkpoints.run_state import States
from jaxdqn.cli.main import main
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import make_vector_env
from jaxdqn.envs.vector.workers import WorkerError
from jaxdqn.loops.assemble import make_device_run
from jaxdqn.loops.device_loop import device_loop
from jaxdqn.loops.finite import check_state_finite


class Spoiled(probes.TerminatingChain):
    """Returns a value that is not finite in one step."""

    value, where = np.nan, "reward"
    steps = 0

    def step(self, action):
        obs, reward, *rest = super().step(action)
        self.steps += 1
        if self.steps == 40:
            obs, reward = (obs * self.value, reward) if self.where == "observation" else (obs, self.value)
        return obs, reward, *rest


def spoiled(value, where):
    return lambda: type("Spoiled", (Spoiled,), {"value": value, "where": where})()


@pytest.mark.slow
@pytest.mark.parametrize(("value", "where"), [(np.nan, "reward"), (np.inf, "observation")])
def test_a_non_finite_reward_or_observation_stops_the_run_at_its_frame(value, where, tmp_path):
    # Episodes have 10 steps and a row for the final observation: the 40th step is in row 43 of each of the 4.
    with pytest.raises(FloatingPointError, match=rf"the {where} of environment 0 is -?{value} at frame 169"):
        finish(jaxdqn.train(config_in(tmp_path / "run"), env_fn=spoiled(value, where)))
    states = States(tmp_path / "run" / "states", keep=2, with_replay=True)
    assert states.newest().manifest.frames == 160
    assert [row["frames"] for row in table(tmp_path / "run" / "metrics.csv")][-1] == "144"  # log_every is 48


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "field", "loop"),
    [
        pytest.param(
            lambda error: jnp.where(error > -1e9, jnp.nan, error), "loss", "device", marks=pytest.mark.several
        ),
        (lambda error: jnp.sqrt(error * 0.0), "gradient norm", "host"),
    ],
)
def test_a_non_finite_loss_or_gradient_stops_the_run(loss, field, loop, tmp_path):
    with pytest.raises(FloatingPointError, match=f"the {field} is nan in the updates after frame 48"):
        finish(jaxdqn.train(config_in(tmp_path / "run", loop=loop, updates_per_batch=1), loss=loss))
    newest = States(tmp_path / "run" / "states", keep=2, with_replay=True).newest()
    assert newest.manifest.frames == 32  # before the first updates


@pytest.mark.slow
def test_non_finite_parameters_are_not_saved(tmp_path):
    """Metrics are computed before the update, so they are still finite."""
    config = config_in(tmp_path / "run", learning_rate=3e38, updates_per_batch=1, warmup_frames=48)
    with pytest.raises(FloatingPointError, match=r"a parameter is not finite|is (nan|inf)"):
        finish(jaxdqn.train(config))
    assert States(tmp_path / "run" / "states", keep=2, with_replay=True).newest().manifest.frames == 32


def test_a_priority_that_is_not_finite_is_reported():
    config = jaxdqn.Config(pixels=False, total_frames=64, warmup_frames=0, capacity=64, batch_size=8, prioritized=True)
    state = jaxdqn.make_agent(config, num_actions=2, obs_shape=(4,), obs_dtype=np.float32).init(jax.random.key(0))
    check_state_finite(state, 32)
    priorities = state.replay.priorities._replace(largest=jnp.array([jnp.nan]))
    with pytest.raises(FloatingPointError, match="the objective's priority is not finite in the updates before frame"):
        check_state_finite(state._replace(replay=state.replay._replace(priorities=priorities)), 32)


class NanAtFirst(probes.OneStep):
    """Its first observation is NaN."""

    def observe(self):
        return super().observe() * np.nan


def test_a_non_finite_first_observation_is_named():
    with pytest.raises(FloatingPointError, match="the first observation of environment 0 is nan"):
        Collector(make_vector_env(NanAtFirst, 2), seed=0)


@pytest.mark.slow
def test_a_fault_is_one_line_on_the_command_line(tmp_path, capsys, monkeypatch):
    gym.register("Spoiled-v0", entry_point=lambda **_: spoiled(np.nan, "reward")())
    words = ["--no-pixels", "--env", "Spoiled-v0", "--total-frames", "512", "--num-envs", "4", "--batch-size", "16"]
    words += ["--warmup-frames", "64", "--checkpoint-every", "64", "--capacity", "512"]
    with pytest.raises(SystemExit) as stop:
        main(["train", *words, "--output", str(tmp_path / "run")])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "jaxdqn: training stopped: the reward of environment 0 is nan at frame " in said
    assert f"`jaxdqn resume {tmp_path / 'run'}` resumes from frame 128" in said
    del gym.registry["Spoiled-v0"]


@pytest.mark.parametrize("field", ["reward", "observation"])
def test_a_non_finite_value_of_a_functional_environment_is_named(field):
    env = probes.counting_env(2)
    step = env.step

    def spoiled_step(key, state, action):
        state, obs, reward, *rest = step(key, state, action)
        bad = jnp.where(state == 2, jnp.nan, 0.0)
        spoiled = {"observation": obs, "reward": reward, field: bad + (obs if field == "observation" else reward)}
        return state, spoiled["observation"], spoiled["reward"], *rest

    run = make_device_run(CONFIG, env=env._replace(step=spoiled_step, observe=None))
    with pytest.raises(FloatingPointError, match=f"the {field} of environment 0 is not finite at frame 3"):
        list(device_loop(run, run.init(jax.random.key(0)), CONFIG))


class Failing(probes.TerminatingChain):
    """Raises, is killed or hangs in one step of the run; it creates a folder, so that this happens only once."""

    def __init__(self, folder, how):
        super().__init__()
        self.folder, self.how, self.steps = folder, how, 0

    def step(self, action):
        self.steps += 1
        if self.steps == 20 and not self.folder.exists():
            try:
                self.folder.mkdir()
            except FileExistsError:
                return super().step(action)
            if self.how == "raises":
                raise ValueError("a broken joint")
            if self.how == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1_000)
        return super().step(action)


SAYS = {
    "raises": r"environment \d \(action \d\) raised ValueError: a broken joint",
    "is killed": r"environment \d \(action \d\) has lost its process",
    "hangs": r"environment \d \(action \d\) has not answered within 3 s",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["is killed", *(pytest.param(how, marks=pytest.mark.long) for how in ("raises", "hangs"))]
)
def test_a_failing_worker_is_named_or_rebuilt(how, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxdqn.envs.vector.workers.STEP_TIMEOUT", 3.0)

    def make():
        return make_vector_env(lambda: Failing(tmp_path / "failed", how), 2, workers=True)

    def act(obs):
        return np.zeros(2, int)

    if how != "raises":
        envs = make()
        processes = list(envs.processes)
        collector = Collector(envs, seed=0)
        with pytest.raises(WorkerError, match=SAYS[how]):
            collector.collect(act, 40)
        assert not any(process.is_alive() for process in processes)
        return
    collector = Collector(make(), seed=0, rebuild=make)
    with pytest.warns(RuntimeWarning, match=f"{SAYS[how]}.*built again"):
        rows, episodes = collector.collect(act, 40)
    collector.close()
    cut = [row for row in range(40) if rows.last[row].all() and not rows.terminated[row - 1].any()]
    assert len(cut) == 1  # one row in which both episodes end without termination
    assert rows.episode_step[cut[0] + 1].tolist() == [0, 0]
    assert not rows.terminated[cut[0]].any()
    assert all(episode.length == 10 for episode in episodes)
