"""One way to step: training, evaluation, the random rollout and pictures check alike and give alike actions."""

import contextlib
import dataclasses
import json

import gymnasium as gym
import numpy as np
import probes
import pytest
from image_envs import Shown, box
from test_run import VECTORS, finish, table

import jaxdqn
from jaxdqn.cli import main
from jaxdqn.envs.collector import Collector
from jaxdqn.envs.pixels import make_env_fn
from jaxdqn.envs.stepping import Stepper
from jaxdqn.envs.vector import CutEpisode, Episode, EpisodeStepper, make_vector_env, random_stacks
from jaxdqn.run.evaluation import Evaluator, summarise
from jaxdqn.run.pictures import draw_episode, record_gif
from jaxdqn.run.states import States


def still(obs):
    return np.zeros(len(obs), np.int32)


class IntegersFirst(gym.Env):
    """`reset` gives integers, `step` floats: 20 steps, a reward where the action is 1 exactly if the fraction is .5."""

    observation_space = gym.spaces.Box(-100, 100, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.array([0]), {}

    def step(self, action):
        reward = float(action == self.count % 2)
        self.count += 1
        return np.array([self.count / 2]), reward, self.count == 20, False, {}


def fraction_policy(obs):
    return (np.asarray(obs)[:, 0] % 1 == 0.5).astype(np.int32)


def test_an_environment_whose_reset_gives_integers_is_not_evaluated_on_truncated_observations():
    for build in (IntegersFirst, make_env_fn("", pixels=False, env_fn=IntegersFirst)):
        episodes = Evaluator(build).play(fraction_policy, range(3))
        assert episodes == [Episode(20.0, 20)] * 3


class Asked(probes.TerminatingChain):
    """Remembers the type of every action."""

    types: set = set()  # noqa: RUF012, of all copies
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, gymnasium's own
    render_mode = "rgb_array"

    def step(self, action):
        self.types.add(type(action))
        return super().step(action)

    def render(self):
        return np.zeros((20, 20, 3), np.uint8)


@pytest.mark.slow
def test_training_evaluation_rollout_and_pictures_pass_one_type_of_action(tmp_path):
    found = {}

    def note(name):
        found[name], Asked.types = Asked.types, set()

    collector = Collector(make_vector_env(Asked, 2), seed=0)
    collector.collect(lambda obs: np.zeros(2, np.int32), 3)
    note("training")
    Evaluator(Asked).play(lambda obs: [0] * len(obs), [0, 1])
    note("evaluation")
    random_stacks(Asked(), frames=5, frame_stack=None, seed=0)
    note("rollout")
    agent = jaxdqn.load(finish(VECTORS, tmp_path / "run", env_fn=Asked), env_fn=Asked)
    note("a whole run")
    record_gif(agent, tmp_path / "agent.gif")
    note("a picture")
    assert found == {name: {np.int64} for name in found}


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float64])
def test_rows_hold_what_replay_holds_whatever_the_dtype_of_the_space(dtype):
    space = gym.spaces.Box(0, 1, (3,), dtype)
    stepper = Stepper(gym.vector.SyncVectorEnv([lambda: Shown(space)] * 2), seeds=[1, 2])
    held = np.uint8 if dtype in (np.bool_, np.uint8) else np.float32
    for _ in range(7):
        row, _ = stepper.step([0, 1])
        assert row.obs.dtype == stepper.cursor.obs.dtype == held


class Broken(probes.TerminatingChain):
    """Gives what is no number in its third step."""

    value, field = np.nan, "reward"

    def step(self, action):
        obs, reward, *rest = super().step(action)
        if self.step_index == 3:
            obs, reward = (obs * self.value, reward) if self.field == "observation" else (obs, self.value)
        return obs, reward, *rest


def broken(field, value):
    return type("Broken", (Broken,), {"value": value, "field": field})


@pytest.mark.parametrize("field", ["reward", "observation"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_what_is_no_number_is_named_wherever_it_is_met(field, value):
    if field == "observation" and value == 1e300:
        value = -np.inf
    make = broken(field, value)
    with pytest.raises(FloatingPointError, match=f"the {field} of environment 0 is .* at frame 3 of an evaluation"):
        Evaluator(make, num_envs=1).play(still, [0])
    with pytest.raises(FloatingPointError, match=f"the {field} of environment 0 is .* of the random rollout"):
        random_stacks(make(), frames=9, frame_stack=None, seed=0)
    collector = Collector(make_vector_env(make, 1), seed=0)
    with pytest.raises(FloatingPointError, match=f"the {field} of environment 0 is .* at frame 13$"):
        collector.collect(still, 5, frames=10)


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_run_whose_evaluation_gives_no_number_stops_and_keeps_its_state(value, tmp_path, capsys):
    gym.register("Broken-v0", entry_point=lambda **_: broken("reward", value)())
    gym.register("Chain-v0", entry_point=lambda **_: probes.TerminatingChain())
    words = ["--env", "Chain-v0", "--eval-env", "Broken-v0", "--total-frames", "256", "--warmup-frames", "64"]
    try:
        with pytest.raises(SystemExit) as stop:
            main(["train", *words, "--batch-size", "16", "--output", str(tmp_path / "run")])
        assert stop.value.code == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"the reward of environment 0 is {value} at frame 3 of an evaluation" not in said.split(";")[1]
        assert f"the reward of environment 0 is {value} at frame 11 of an evaluation" in said  # five side by side
        facts = States(tmp_path / "run" / "states", keep=2, with_replay=True).newest().facts
        assert (facts["frames"], facts["evaluation_due"]) == (256, True)
        assert table(tmp_path / "run" / "evaluations.csv") == []
        # Once the environment is mended, a resume evaluates once, and not again.
        del gym.registry["Broken-v0"]
        gym.register("Broken-v0", entry_point=lambda **_: probes.TerminatingChain())
        for _ in range(2):
            with contextlib.suppress(ValueError):  # the second time there is nothing left to do
                for _step in jaxdqn.resume(tmp_path / "run", say=lambda note: None):
                    pass
            assert [row["frames"] for row in table(tmp_path / "run" / "evaluations.csv")] == ["256"]
        facts = States(tmp_path / "run" / "states", keep=2, with_replay=True).newest().facts
        assert not facts["evaluation_due"]
    finally:
        del gym.registry["Broken-v0"], gym.registry["Chain-v0"]


class Endless(probes.Probe):
    """Never ends; every step gives 1."""

    length = 10**9

    def reward(self, action):
        return 1.0


def test_an_episode_that_reaches_the_limit_counts_as_truncated_and_is_counted():
    said = []
    evaluator = Evaluator(Endless, num_envs=2, max_steps=7, say=said.append)
    episodes = evaluator.play(still, range(5))
    assert episodes == [CutEpisode(7.0, 7)] * 5
    assert summarise(episodes).cut == 5
    assert summarise([*episodes[:2], Episode(9.0, 7)]).cut == 2
    exact = Evaluator(probes.TerminatingChain, max_steps=10).play(still, range(3))
    assert summarise(exact).cut == 0  # it ended by itself, in the last step that it had


def test_a_long_evaluation_shows_how_far_it_is(monkeypatch):
    said = []
    monkeypatch.setattr("jaxdqn.run.evaluation.SECONDS_BETWEEN_NOTES", 0.0)
    Evaluator(Endless, num_envs=2, max_steps=3, say=said.append).play(still, range(3))
    assert said[0] == "evaluating: 0 of 3 episodes done, the longest open one is at step 1 of at most 3"
    assert any(line.startswith("evaluating: 2 of 3 episodes done") for line in said)


@pytest.mark.slow
def test_a_run_on_an_environment_that_never_ends_is_evaluated_and_resumed(tmp_path):
    config = dataclasses.replace(VECTORS, max_episode_steps=9, total_frames=256, evaluate_every=128)
    run = finish(config, tmp_path / "run", env_fn=Endless)
    rows = table(run / "evaluations.csv")
    assert [(row["frames"], row["cut"], row["mean"]) for row in rows] == [("128", "4", "9.0"), ("256", "4", "9.0")]
    longer = jaxdqn.load(run, env_fn=Endless).evaluate(3, max_episode_steps=12)
    assert (longer.mean, longer.cut, longer.lengths) == (12.0, 3, [12, 12, 12])
    with pytest.raises(ValueError, match="max_episode_steps 0 must be at least 1"):
        jaxdqn.load(run, env_fn=Endless).evaluate(3, max_episode_steps=0)


@pytest.mark.slow
def test_the_command_line_cuts_episodes_and_says_so(tmp_path, capsys):
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
        assert "over 2 episodes (min 8, max 8, 2 cut at their 8th step)" in out
        found = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
        assert (found["mean"], found["cut"], found["max_episode_steps"]) == (8.0, 2, 8)
        assert "2 of them were cut after 5 steps, and count with what they had got by then" in out
        assert "an episode of return 6, cut after 6 steps" in out
        for command in (["evaluate", run, "--max-episode-steps", "0"], ["play", run, "--max-episode-steps", "-1"]):
            with pytest.raises(SystemExit) as stop:
                main(command)
            assert stop.value.code == 2
            assert "must be at least 1" in capsys.readouterr().err
    finally:
        del gym.registry["Endless-v0"]


class Drawn(Endless):
    """One that draws itself, in floats."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, gymnasium's own
    render_mode = "rgb_array"

    def render(self):
        return np.full((20, 20, 4), 0.5)


def test_seeds_are_played_once_each_and_environments_rest_when_there_are_none_left():
    class Seeded(Endless):
        length = 2

        def reset(self, *, seed=None, options=None):
            self.seed = seed
            return super().reset(seed=seed)

        def reward(self, action):
            return float(self.seed)

    stepper = EpisodeStepper([Seeded(), Seeded(), Seeded()], [5, 7])
    found = {}
    for _ in range(6):
        _, ended = stepper.step([0, 0, 0])
        found |= stepper.finished(ended)
    assert found == {0: Episode(10.0, 2), 1: Episode(14.0, 2)}


class Clipped(probes.TerminatingChain):
    """A chain whose rewards are clipped for training: 1 a step where the real one gives 100."""


class Raw(probes.TerminatingChain):
    """The same, unclipped."""

    def reward(self, action):
        return 100.0


@pytest.mark.slow
def test_evaluation_may_have_an_environment_of_its_own_so_that_returns_are_raw(tmp_path):
    run = finish(VECTORS, tmp_path / "run", env_fn=Clipped, eval_env_fn=Raw)
    assert {float(row["mean"]) for row in table(run / "evaluations.csv")} == {1000.0}
    assert {row["return_mean"] for row in table(run / "metrics.csv")} == {"", "10.0"}
    assert jaxdqn.load(run, env_fn=Raw).evaluate(2).returns == [1000.0, 1000.0]
    with pytest.raises(ValueError, match="environment of your own"):
        jaxdqn.load(run).evaluate(2)
    with pytest.raises(ValueError, match="trained with eval_env_fn of your own: give it that eval_env_fn again"):
        next(jaxdqn.resume(run, total_frames=1024, env_fn=Clipped))
    again = {"env_fn": Clipped, "eval_env_fn": Raw, "say": lambda note: None}
    more = list(jaxdqn.resume(run, total_frames=640, **again))
    assert more[-1].evaluation.mean == 1000.0


@pytest.mark.slow
def test_an_environment_to_evaluate_on_must_be_like_the_one_that_is_trained_on(tmp_path):
    config = dataclasses.replace(VECTORS, output=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"env Shown has 3 actions and observations \(7,\) float32; the agent was"):
        next(jaxdqn.train(config, env_fn=Clipped, eval_env_fn=lambda: Shown(box((7,), np.float32))))
    with pytest.raises(ValueError, match="env 'NoSuch-v0' cannot be made"):
        next(jaxdqn.train(dataclasses.replace(config, eval_env="NoSuch-v0")))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_episode_that_is_drawn_ends_where_it_is_cut(tmp_path):
    run = finish(dataclasses.replace(VECTORS, max_episode_steps=20), tmp_path / "run", env_fn=Drawn)
    agent = jaxdqn.load(run, env_fn=Drawn)
    assert draw_episode(agent, tmp_path / "a.gif", longest=4) == CutEpisode(4.0, 4)
    assert record_gif(agent, tmp_path / "a.gif", longest=5) == 5.0
