"""Unusual environments of other people: each one works, or is refused in one line that says what to do."""

import dataclasses

import gymnasium as gym
import numpy as np
import probes
import pytest
from gymnasium.wrappers import FrameStackObservation, NormalizeObservation, NormalizeReward
from image_envs import GivenObs, RandomObs, box
from running import command, registered
from whole_runs import VECTORS, finish, table

import jaxdqn
from jaxdqn.envs.gymnasium.building import make_env_fn, spec_of_env
from jaxdqn.envs.gymnasium.making import make_by_id
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import make_vector_env
from jaxdqn.envs.vector.stepper import fault_of
from jaxdqn.evaluation.evaluator import Evaluator


def still(obs):
    return np.zeros(len(obs), np.int32)


TINY = ["--total-frames", "192", "--warmup-frames", "64", "--batch-size", "16", "--evaluate-every", "96"]


class Raising(probes.TerminatingChain):
    """Raise in the fourth step."""

    def step(self, action):
        if self.step_index == 3:
            raise KeyError("joint_7")
        return super().step(action)


class OldApi(probes.TerminatingChain):
    """Return four values from `step`, as in old versions of gym."""

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Raising, "env Foreign-v0 raised KeyError at frame 25, or one of the next 7: KeyError: 'joint_7'"),
        (OldApi, "env Foreign-v0 raised ValueError at frame 1, or one of the next 7: not enough values to unpack"),
    ],
)
def test_an_environment_that_raises_in_a_step_ends_the_run_with_one_line_and_exit_code_1(make, says, tmp_path, capsys):
    with registered("Foreign-v0", lambda **_: make()):
        assert command("train", "--env", "Foreign-v0", *TINY, "--output", tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert says in said
    with pytest.raises((KeyError, ValueError)) as raised:
        Evaluator(make).play(still, [0])
    assert "of an evaluation" in fault_of(raised.value)


class NoSeed(probes.TerminatingChain):
    """An environment whose reset takes no seed."""

    def reset(self):
        return super().reset()


def failing_constructor(**_):
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda **_: NoSeed(), "unexpected keyword argument 'seed'"),
        (failing_constructor, "env 'Foreign-v0' cannot be made: AssertionError"),
    ],
    ids=["reset without seed", "constructor"],
)
def test_an_environment_that_cannot_start_is_refused_in_one_line_and_leaves_no_files(make, says, tmp_path, capsys):
    with registered("Foreign-v0", make):
        assert command("train", "--env", "Foreign-v0", *TINY, "--output", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert says in said
    assert not (tmp_path / "run").exists()


def test_an_environment_without_render_mode_is_made_by_id_unless_it_must_render():
    with registered("Foreign-v0", probes.TerminatingChain):
        make_by_id("Foreign-v0", render=False).close()
        with pytest.raises(ValueError, match=r"cannot be rendered: its constructor takes no render_mode"):
            make_by_id("Foreign-v0", render=True)


def test_an_env_fn_that_returns_the_same_environment_twice_or_none_is_refused():
    shared = probes.TerminatingChain()
    with pytest.raises(ValueError, match="env_fn returned the same environment twice: return a new one"):
        make_vector_env(lambda: shared, 3)
    with pytest.raises(ValueError, match=r"env_fn returned None, which is not a gymnasium.Env"):
        make_env_fn("", pixels=False, env_fn=lambda: None)()


class ChangingInfo(probes.TerminatingChain):
    """Return infos of a different shape at each step, which gymnasium allows, and once None."""

    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, None if self.step_index == 1 else {"events": np.arange(self.np_random.integers(5))}


@pytest.mark.parametrize("workers", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_infos_of_any_type_are_ignored(workers):
    collector = Collector(make_vector_env(ChangingInfo, 3, workers=workers), seed=0)
    _, episodes = collector.collect(lambda obs: np.zeros(3, np.int32), 25)
    collector.close()
    assert {episode.length for episode in episodes} == {10}
    assert {episode.length for episode in Evaluator(ChangingInfo).play(still, range(4))} == {10}


class OwnGenerator(probes.TerminatingChain):
    """An environment with a random generator of NumPy's old type."""

    def reset(self, *, seed=None, options=None):
        found = super().reset(seed=seed)
        self._np_random = np.random.RandomState(seed)
        return found


def test_environments_with_another_random_generator_collect_rows_but_have_no_snapshot():
    collector = Collector(make_vector_env(make_env_fn("", pixels=False, env_fn=OwnGenerator), 2), seed=0)
    collector.collect(lambda obs: np.zeros(2, np.int32), 3)
    assert collector.snapshot() is None


def test_a_space_that_may_be_an_image_or_stacked_vectors_needs_pixels_set():
    def spec_of(pixels, width=128):
        return spec_of_env(make_env_fn("", pixels=pixels, env_fn=lambda: RandomObs(box((4, width))))())

    with pytest.raises(ValueError, match=r"an image, or a stack of vectors\? set pixels to True"):
        spec_of(None)
    assert spec_of(False).shape == (4, 128)
    assert spec_of(True).shape == (64, 64)
    for width in (8, 128):  # stacked by gymnasium's wrapper, so there is no doubt
        stacked = make_env_fn("", pixels=None, env_fn=lambda w=width: FrameStackObservation(RandomObs(box((w,))), 4))()
        assert (spec_of_env(stacked).shape, spec_of_env(stacked).stack) == ((4, width), None)


@pytest.mark.parametrize("frames", [1, 3])
def test_three_grey_frames_that_gymnasium_stacks_are_not_taken_for_colours(frames):
    inner = RandomObs(box((48, 56)))
    env = make_env_fn("", env_fn=lambda: FrameStackObservation(inner, frames))()
    obs, _ = env.reset(seed=0)
    assert spec_of_env(env).shape == obs.shape == (48, 56, frames)
    np.testing.assert_array_equal(obs[..., -1], inner.newest)


@pytest.mark.parametrize(
    ("space", "returns", "says"),
    [
        (box((10, 10), high=1), lambda: np.full((10, 10), 255, np.uint8), "255 to 255, but its space allows 0 to 1"),
        (box((40, 40), high=1), lambda: np.full((40, 40), 255, np.uint8), "255 to 255, but its space allows 0 to 1"),
        (box((10, 10, 5), np.float32), lambda: np.full((10, 10, 5), -3, np.float32), "from -3 to -3, but its space"),
    ],
)
def test_images_with_values_outside_their_space_are_refused(space, returns, says):
    env = make_env_fn("", env_fn=lambda: GivenObs(space, picture=returns))()
    with pytest.raises(ValueError, match=says):
        env.reset(seed=0)


@pytest.mark.parametrize("pixels", [True, None])
def test_observations_with_four_axes_are_not_images_and_are_not_replaced_by_pictures(pixels):
    space = box((2, 4, 20, 20))
    with pytest.raises(ValueError, match="set pixels to False to learn from the numbers as a vector"):
        make_env_fn("", pixels=pixels, env_fn=lambda: RandomObs(space, "rgb_array"))()
    assert spec_of_env(make_env_fn("", pixels=False, env_fn=lambda: RandomObs(space))()).shape == (2, 4, 20, 20)


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", [NormalizeObservation, NormalizeReward])
def test_wrappers_with_running_statistics_are_reported(wrapper, tmp_path):
    said = []
    config = dataclasses.replace(VECTORS, output=str(tmp_path / "run"))
    next(jaxdqn.train(config, env_fn=lambda: wrapper(probes.TerminatingChain()), say=said.append))
    assert said[0].startswith(f"{wrapper.__name__} has separate statistics in each copy of env")


@pytest.mark.slow
def test_an_agent_can_be_loaded_and_evaluated_after_its_evaluation_failed(tmp_path, capsys):
    with registered("Foreign-v0", lambda **_: Raising()), registered("Chain-v0", lambda **_: probes.TerminatingChain()):
        run = tmp_path / "run"
        words = ["--env", "Chain-v0", "--eval-env", "Foreign-v0", *TINY, "--checkpoint-every", "96"]
        assert command("train", *words, "--output", run) == 1
        assert "env Foreign-v0 raised KeyError" in capsys.readouterr().err
        assert command("evaluate", run, "--checkpoint", "last") == 1
        assert "evaluation stopped: env Foreign-v0 raised KeyError" in capsys.readouterr().err
        assert command("evaluate", run) == 2
    agent = jaxdqn.load(run, "last", env_fn=probes.TerminatingChain)
    assert agent.evaluate(2).lengths == [10, 10]


def test_eval_env_together_with_eval_env_fn_is_refused(tmp_path):
    config = dataclasses.replace(VECTORS, eval_env="CartPole-v1", output=str(tmp_path))
    with pytest.raises(ValueError, match="eval_env 'CartPole-v1' and eval_env_fn are both given: give only one"):
        next(jaxdqn.train(config, eval_env_fn=lambda: gym.make("CartPole-v1")))


class Losing(probes.TerminatingChain):
    """Every step gives -1."""

    def reward(self, action):
        return -1.0


@pytest.mark.slow
@pytest.mark.pictures
@pytest.mark.filterwarnings("ignore:no agent.gif")
def test_a_curve_of_negative_returns_shows_them(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    shown = []
    real = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: shown.append(self.axes[0].get_ylim()) or real(self, *a, **k)
    )
    run = finish(VECTORS, tmp_path / "run", env_fn=Losing)
    low, high = shown[0]
    assert low < -10 < high
    assert {row["mean"] for row in table(run / "evaluations.csv")} == {"-10.0"}
