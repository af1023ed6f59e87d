"""Evaluation: cut episodes, separate evaluation environments, and progress messages."""

import dataclasses
import json

import gymnasium as gym
import numpy as np
import probes
import pytest
from image_envs import RandomObs, box
from whole_runs import VECTORS, finish, table

import jaxdqn
from jaxdqn.cli.main import main
from jaxdqn.envs.vector.episodes import CutEpisode, Episode
from jaxdqn.evaluation.evaluator import Evaluator, summarise
from jaxdqn.reporting.gif import draw_episode, record_gif


def test_episodes_that_reach_the_limit_are_cut_and_counted():
    messages = []
    evaluator = Evaluator(probes.Endless, num_envs=2, max_steps=7, say=messages.append)
    episodes = evaluator.play(still, range(5))
    assert episodes == [CutEpisode(7.0, 7)] * 5
    assert summarise(episodes).cut == 5
    assert summarise([*episodes[:2], Episode(9.0, 7)]).cut == 2
    exact = Evaluator(probes.TerminatingChain, max_steps=10).play(still, range(3))
    assert summarise(exact).cut == 0  # it ended by itself, in the last allowed step


def test_a_long_evaluation_reports_its_progress(monkeypatch):
    messages = []
    monkeypatch.setattr("jaxdqn.evaluation.evaluator.SECONDS_BETWEEN_NOTES", 0.0)
    Evaluator(probes.Endless, num_envs=2, max_steps=3, say=messages.append).play(still, range(3))
    assert messages[0] == "evaluating: 0 of 3 episodes done, the longest open one is at step 1 of at most 3"
    assert any(line.startswith("evaluating: 2 of 3 episodes done") for line in messages)


def still(obs):
    return np.zeros(len(obs), np.int32)


@pytest.mark.slow
def test_a_run_on_an_environment_that_never_ends_is_evaluated_and_resumed(tmp_path):
    config = dataclasses.replace(VECTORS, max_episode_steps=9)
    run = finish(config, tmp_path / "run", env_fn=probes.Endless)
    rows = table(run / "evaluations.csv")
    assert [(row["frames"], row["cut"], row["mean"]) for row in rows] == [("256", "4", "9.0"), ("512", "4", "9.0")]
    longer = jaxdqn.load(run, env_fn=probes.Endless).evaluate(3, max_episode_steps=12)
    assert (longer.mean, longer.cut, longer.lengths) == (12.0, 3, [12, 12, 12])
    with pytest.raises(ValueError, match="max_episode_steps 0 must be at least 1"):
        jaxdqn.load(run, env_fn=probes.Endless).evaluate(3, max_episode_steps=0)


@pytest.mark.slow
def test_the_command_line_cuts_long_episodes_and_reports_them(tmp_path, capsys):
    gym.register("Endless-v0", entry_point=lambda **_: Drawn())
    words = ["--env", "Endless-v0", "--total-frames", "256", "--warmup-frames", "64", "--batch-size", "16"]
    run = str(tmp_path / "run")
    try:
        for command in (
            ["train", *words, "--max-episode-steps", "8", "--evaluation-episodes", "2", "--output", run],
            ["evaluate", run, "--episodes", "2", "--json"],
            ["evaluate", run, "--episodes", "2", "--max-episode-steps", "5"],
            ["play", run, "--output", str(tmp_path / "a.gif"), "--max-episode-steps", "6"],
        ):
            with pytest.raises(SystemExit) as stop:
                main(command)
            assert stop.value.code == 0
        out = capsys.readouterr().out
        assert "over 2 episodes (min 8, max 8, 2 cut after 8 steps)" in out
        found = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
        assert (found["mean"], found["cut"], found["max_episode_steps"]) == (8.0, 2, 8)
        assert "2 of them were cut after 5 steps and count with their return up to then" in out
        assert "an episode of return 6, cut after 6 steps" in out
        for command in (["evaluate", run, "--max-episode-steps", "0"], ["play", run, "--max-episode-steps", "-1"]):
            with pytest.raises(SystemExit) as stop:
                main(command)
            assert stop.value.code == 2
            assert "must be at least 1" in capsys.readouterr().err
    finally:
        del gym.registry["Endless-v0"]


class Drawn(probes.Endless):
    """An endless environment that draws itself, in floats."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, gymnasium declares it so
    render_mode = "rgb_array"

    def render(self):
        return np.full((20, 20, 4), 0.5)


class Clipped(probes.TerminatingChain):
    """A chain whose rewards are clipped for training: 1 a step instead of 100."""


class Raw(probes.TerminatingChain):
    """The same chain with unclipped rewards."""

    def reward(self, action):
        return 100.0


@pytest.mark.slow
def test_evaluation_can_use_a_separate_environment_with_raw_rewards(tmp_path):
    run = finish(VECTORS, tmp_path / "run", env_fn=Clipped, eval_env_fn=Raw)
    assert {float(row["mean"]) for row in table(run / "evaluations.csv")} == {1000.0}
    assert {row["return_mean"] for row in table(run / "metrics.csv")} == {"", "10.0"}
    assert jaxdqn.load(run, env_fn=Raw).evaluate(2).returns == [1000.0, 1000.0]
    with pytest.raises(ValueError, match="environment of your own"):
        jaxdqn.load(run).evaluate(2)
    with pytest.raises(ValueError, match=r"trained with your own eval_env_fn, test_evaluator\.Raw: pass that"):
        next(jaxdqn.resume(run, total_frames=1024, env_fn=Clipped))
    again = {"env_fn": Clipped, "eval_env_fn": Raw, "say": lambda note: None}
    more = list(jaxdqn.resume(run, total_frames=640, **again))
    assert more[-1].evaluation.mean == 1000.0


@pytest.mark.slow
def test_an_evaluation_environment_that_differs_from_the_training_environment_is_rejected(tmp_path):
    config = dataclasses.replace(VECTORS, output=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"env RandomObs has 3 actions and observations \(7,\) float32; the agent was"):
        next(jaxdqn.train(config, env_fn=Clipped, eval_env_fn=lambda: RandomObs(box((7,), np.float32))))
    with pytest.raises(ValueError, match="env 'NoSuch-v0' cannot be made"):
        next(jaxdqn.train(dataclasses.replace(config, eval_env="NoSuch-v0")))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_drawn_episode_is_cut_at_its_limit(tmp_path):
    run = finish(dataclasses.replace(VECTORS, max_episode_steps=20), tmp_path / "run", env_fn=Drawn)
    agent = jaxdqn.load(run, env_fn=Drawn)
    assert draw_episode(agent, tmp_path / "a.gif", longest=4) == CutEpisode(4.0, 4)
    assert record_gif(agent, tmp_path / "a.gif", longest=5) == 5.0
