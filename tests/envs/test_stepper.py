"""Training, evaluation, the random rollout and pictures step alike: the same checks, the same type of action."""

import contextlib

import gymnasium as gym
import numpy as np
import probes
import pytest
from image_envs import RandomObs
from whole_runs import VECTORS, finish, table

import jaxdqn
from jaxdqn.checkpoints.run_state import States
from jaxdqn.cli.main import main
from jaxdqn.envs.gymnasium.building import make_env_fn
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import Episode, EpisodeStepper, make_vector_env, random_stacks
from jaxdqn.envs.vector.stepper import Stepper
from jaxdqn.evaluation.evaluator import Evaluator
from jaxdqn.reporting.gif import record_gif


def still(obs):
    return np.zeros(len(obs), np.int32)


class IntegersFirst(gym.Env):
    """Integers from `reset`, floats from `step`; a reward if the action is 1 for a fraction of .5, else 0; 20 steps."""

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


def test_integers_from_reset_do_not_truncate_later_float_observations():
    for build in (IntegersFirst, make_env_fn("", pixels=False, env_fn=IntegersFirst)):
        episodes = Evaluator(build).play(fraction_policy, range(3))
        assert episodes == [Episode(20.0, 20)] * 3


class ActionTypes(probes.TerminatingChain):
    """Record the type of every action."""

    types: set = set()  # noqa: RUF012, shared by all copies
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, as in gymnasium
    render_mode = "rgb_array"

    def step(self, action):
        self.types.add(type(action))
        return super().step(action)

    def render(self):
        return np.zeros((20, 20, 3), np.uint8)


@pytest.mark.slow
def test_training_evaluation_rollout_and_pictures_use_one_type_of_action(tmp_path):
    found = {}

    def record(name):
        found[name], ActionTypes.types = ActionTypes.types, set()

    collector = Collector(make_vector_env(ActionTypes, 2), seed=0)
    collector.collect(lambda obs: np.zeros(2, np.int32), 3)
    record("training")
    Evaluator(ActionTypes).play(lambda obs: [0] * len(obs), [0, 1])
    record("evaluation")
    random_stacks(ActionTypes(), frames=5, frame_stack=None, seed=0)
    record("rollout")
    agent = jaxdqn.load(finish(VECTORS, tmp_path / "run", env_fn=ActionTypes), env_fn=ActionTypes)
    record("a whole run")
    record_gif(agent, tmp_path / "agent.gif")
    record("a picture")
    assert found == {name: {np.int64} for name in found}


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float64])
def test_rows_have_the_dtype_of_replay_for_every_dtype_of_space(dtype):
    space = gym.spaces.Box(0, 1, (3,), dtype)
    stepper = Stepper(gym.vector.SyncVectorEnv([lambda: RandomObs(space)] * 2), seeds=[1, 2])
    held = np.uint8 if dtype in (np.bool_, np.uint8) else np.float32
    for _ in range(7):
        row, _ = stepper.step([0, 1])
        assert row.obs.dtype == stepper.cursor.obs.dtype == held


class Broken(probes.TerminatingChain):
    """Return NaN or another bad value in the third step."""

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
def test_a_value_that_is_not_finite_is_named_in_every_use(field, value):
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
def test_a_run_whose_evaluation_is_not_finite_stops_and_keeps_its_state(value, tmp_path, capsys):
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
        assert f"the reward of environment 0 is {value} at frame 11 of an evaluation" in said  # of 5 environments
        saved = States(tmp_path / "run" / "states", keep=2, with_replay=True).newest().manifest
        assert (saved.frames, saved.record.evaluation_due) == (256, True)
        assert table(tmp_path / "run" / "evaluations.csv") == []
        # With a repaired environment the first resume evaluates, and the second does not.
        del gym.registry["Broken-v0"]
        gym.register("Broken-v0", entry_point=lambda **_: probes.TerminatingChain())
        for _ in range(2):
            with contextlib.suppress(ValueError):  # the second time there is nothing left to do
                for _step in jaxdqn.resume(tmp_path / "run", say=lambda message: None):
                    pass
            assert [row["frames"] for row in table(tmp_path / "run" / "evaluations.csv")] == ["256"]
        saved = States(tmp_path / "run" / "states", keep=2, with_replay=True).newest().manifest
        assert not saved.record.evaluation_due
    finally:
        del gym.registry["Broken-v0"], gym.registry["Chain-v0"]


def test_each_seed_is_played_once_and_environments_without_a_seed_are_idle():
    class Seeded(probes.Endless):
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
