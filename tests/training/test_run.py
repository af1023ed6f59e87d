"""Whole runs: the files that they write, that the same seed repeats them, and what can be loaded from them."""

import contextlib
import dataclasses
import json

import gymnasium as gym
import jax
import numpy as np
import probes
import pytest
from conftest import draw_pictures
from PIL import Image
from whole_runs import PIXELS, VECTORS, finish, table

import jaxdqn
from jaxdqn.checkpoints.agent_files import AgentSpec, Checkpoints
from jaxdqn.config import Config
from jaxdqn.envs.gymnasium.building import make_env_fn
from jaxdqn.observations import ObsSpec
from jaxdqn.reporting.gif import record_gif
from jaxdqn.reporting.plots import draw_curve
from jaxdqn.training.setup import inspect_env

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pixel_run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        draw_pictures(patch)
        return finish(PIXELS, tmp_path_factory.mktemp("runs") / "pixels")


@pytest.fixture(scope="module")
def vector_run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        draw_pictures(patch)
        return finish(VECTORS, tmp_path_factory.mktemp("runs") / "vectors")


def test_a_run_writes_the_files_that_the_readme_lists(pixel_run):
    names = {path.name for path in pixel_run.iterdir()}
    files = {".lock", "config.json", "versions.json", "metrics.csv", "evaluations.csv", "curve.png", "agent.gif"}
    assert names == files | {"tensorboard", "checkpoints", "states"}
    assert Config.from_dict(json.loads((pixel_run / "config.json").read_text())).frame_size == 44
    assert json.loads((pixel_run / "versions.json").read_text())["jax"] == jax.__version__
    metrics = table(pixel_run / "metrics.csv")
    assert next(iter(metrics[0])) == "frames"
    assert [row["frames"] for row in metrics] == ["32", "64", "96", "128"]
    assert [row["updates"] for row in metrics] == ["0", "2", "4", "6"]  # 64 warm-up frames, then 2 per batch
    assert metrics[0]["loss"] == ""
    assert all(float(row["loss"]) >= 0 for row in metrics[1:])
    evaluations = table(pixel_run / "evaluations.csv")
    assert [row["frames"] for row in evaluations] == ["64", "128"]
    lengths = [int(length) for length in evaluations[0]["lengths"].split()]
    assert len(lengths) == 4  # the first evaluation always plays every episode
    assert float(evaluations[0]["mean"]) == np.mean(lengths)  # CartPole gives 1 per step: returns are not scaled
    assert any((pixel_run / "tensorboard").iterdir())


def test_the_gif_and_the_curve_are_valid_images(pixel_run):
    with Image.open(pixel_run / "agent.gif") as gif:
        assert gif.n_frames >= 4
        assert gif.size == (685, 240)
    with Image.open(pixel_run / "curve.png") as curve:
        assert curve.size[0] > 800


def test_a_trained_agent_returns_actions_and_evaluations(pixel_run):
    agent = jaxdqn.load(pixel_run)
    actions = agent(np.zeros((3, 44, 44, 4), np.uint8))
    assert actions.shape == (3,)
    assert set(actions.tolist()) <= {0, 1}
    found = agent.evaluate(episodes=6, seed=1)
    assert found.episodes == len(found.lengths) == 6
    assert found.returns == [float(length) for length in found.lengths]
    assert found == agent.evaluate(episodes=6, seed=1)
    assert found.returns != agent.evaluate(episodes=6, seed=2).returns


@pytest.mark.parametrize(
    "which", ["average", *(pytest.param(which, marks=pytest.mark.long) for which in ("online", "target"))]
)
def test_the_last_agent_has_the_params_at_the_end_of_training(which, tmp_path):
    config = dataclasses.replace(VECTORS, output=str(tmp_path / "run"), greedy_params=which)
    *_, end = jaxdqn.train(config)
    last, learner = jaxdqn.load(tmp_path / "run", "last"), end.progress.state.learner
    jax.tree.map(np.testing.assert_array_equal, last.params, learner.greedy_params(which))
    assert (learner.average_params is None) == (which != "average")


@pytest.mark.long
@pytest.mark.makes_agents
def test_the_same_seed_repeats_a_run(vector_run, tmp_path):
    again = finish(VECTORS, tmp_path / "again")
    for name in ("metrics.csv", "evaluations.csv"):
        assert table(again / name) == table(vector_run / name)


def test_another_seed_gives_another_run(vector_run, tmp_path):
    other = finish(dataclasses.replace(VECTORS, seed=1), tmp_path / "other")
    for name in ("metrics.csv", "evaluations.csv"):
        assert table(other / name) != table(vector_run / name)


@pytest.mark.long
def test_the_same_seed_repeats_a_pixel_run(pixel_run, tmp_path):
    again = finish(PIXELS, tmp_path / "again")
    assert table(again / "metrics.csv") == table(pixel_run / "metrics.csv")


def test_log_every_thins_the_metrics_but_keeps_the_last_row(vector_run, tmp_path):
    run = finish(dataclasses.replace(VECTORS, log_every=192), tmp_path / "run")
    assert [row["frames"] for row in table(run / "metrics.csv")] == ["192", "384", "512"]
    # Episodes of the batches without a row are counted in the next row.
    assert table(run / "metrics.csv")[-1]["episodes"] == table(vector_run / "metrics.csv")[-1]["episodes"]


def test_total_frames_round_up_to_a_whole_batch(vector_run):
    assert VECTORS.total_frames == 500
    assert table(vector_run / "metrics.csv")[-1]["frames"] == "512"


@pytest.mark.pictures
def test_env_fn_replaces_the_environment_id(tmp_path):
    with pytest.warns(RuntimeWarning, match=r"no agent.gif: .* does not draw itself"):
        run = finish(VECTORS, tmp_path / "run", env_fn=probes.ActionValue)
    with pytest.raises(ValueError, match="environment of your own"):
        jaxdqn.load(run).evaluate(episodes=1)
    with pytest.raises(ValueError, match=r"trained for 2 and \(2,\) float32"):
        jaxdqn.load(run, env_fn=lambda: gym.make("CartPole-v1")).evaluate(episodes=1)
    found = jaxdqn.load(run, env_fn=probes.ActionValue).evaluate(episodes=5, seed=0)
    assert found.lengths == [1] * 5
    assert not (run / "agent.gif").exists()


class Picture(gym.Env):
    """An environment whose observations are already images."""

    observation_space = gym.spaces.Box(0, 255, (48, 40, 3), np.uint8)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full((48, 40, 3), 7, np.uint8), {}

    def step(self, action):
        return np.full((48, 40, 3), 200, np.uint8), 1.0, bool(self.np_random.random() < 0.2), False, {}


def test_image_observations_are_used_without_rendering():
    with contextlib.closing(make_env_fn("", pixels=True, frame_size=36, env_fn=Picture)()) as env:
        assert inspect_env(env) == AgentSpec(3, ObsSpec((36, 36), np.dtype(np.uint8), 4, 255.0))
        first, _ = env.reset(seed=0)
        following = env.step(0)[0]
    assert np.unique(first).tolist() == [7]
    assert np.unique(following).tolist() == [200]


def test_environments_are_closed_if_the_loop_is_left(tmp_path):
    closed = []

    class Closing(probes.OneStep):
        def close(self):
            closed.append(1)

    config = dataclasses.replace(VECTORS, output=str(tmp_path / "run"))
    steps = jaxdqn.train(config, env_fn=Closing)
    next(steps)
    steps.close()
    assert len(closed) == 1 + 4 + 5  # one inspected, 4 to train on, 5 to evaluate on
    assert len(table(tmp_path / "run" / "metrics.csv")) == 1
    assert (tmp_path / "run" / "curve.png").exists()


@pytest.mark.makes_agents
def test_replay_that_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    config = dataclasses.replace(PIXELS, output=str(tmp_path / "run"), capacity=10**13)
    with pytest.raises(ValueError, match=r"capacity .* needs [\d,]+ bytes .* largest that fits is \d+"):
        next(jaxdqn.train(config))
    assert not (tmp_path / "run").exists()


def test_load_refuses_another_network(vector_run):
    with pytest.raises(ValueError, match="another network"):
        jaxdqn.load(vector_run, network=jaxdqn.DuelingMLP(2, trunk=(7,)))


def test_checkpoints_keep_the_last_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    spec = AgentSpec(2, ObsSpec((4,), np.dtype(np.float32), None, 1.0))
    for frames, best in ((10, [1.0]), (20, None), (30, [1.0, 3.0]), (40, None)):
        checkpoints.save({"w": np.full(2, frames, np.float32)}, spec, frames=frames, best_returns=best)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["00000030", "00000040", "index.json"]
    like = {"w": jax.ShapeDtypeStruct((2,), np.float32)}
    assert checkpoints.params("best", like)["w"].tolist() == [30, 30]
    assert checkpoints.params("last", like)["w"].tolist() == [40, 40]
    assert checkpoints.spec("best", VECTORS) == spec
    index = {"last": 40, "best": 30, "best_mean": 2.0, "best_returns": [1.0, 3.0]}
    assert checkpoints.index() == index


def test_draw_curve_accepts_several_runs_and_a_run_without_evaluations(vector_run, pixel_run, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in ("metrics.csv", "evaluations.csv"):  # only a header
        (begun / name).write_text((vector_run / name).read_text().splitlines()[0] + "\n")
    draw_curve([vector_run, pixel_run, begun], tmp_path / "all.png")
    assert (tmp_path / "all.png").stat().st_size > 10_000


def test_a_vector_agent_is_drawn_if_its_environment_renders(vector_run, tmp_path):
    with Image.open(vector_run / "agent.gif") as gif:
        assert gif.n_frames >= 4
    with pytest.raises(ValueError, match="does not draw itself"):
        record_gif(jaxdqn.load(vector_run, env_fn=lambda: gym.make("CartPole-v1")), tmp_path / "agent.gif")
    assert not (tmp_path / "agent.gif").exists()
