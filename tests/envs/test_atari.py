"""Atari: frames as in gymnasium's AtariPreprocessing, lives, seeds, options, whole runs."""

import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing
from PIL import Image
from running import command
from whole_runs import VECTORS

import jaxdqn
from jaxdqn.envs.atari import AtariGame, AtariGames
from jaxdqn.envs.gymnasium.building import make_env_fn
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import make_vector_env

ale_py = pytest.importorskip("ale_py", reason="extra atari")
pytest.importorskip("cv2", reason="extra test")

GAMES = ("Pong", "Breakout", "Freeway", "SpaceInvaders", "Seaquest")
PLAIN = {"sticky_actions": 0.0}


def compare_frames(name, steps):
    """Play the same game in ours and in gymnasium's wrapper, through the ends of episodes."""
    ours = AtariGame(f"ALE/{name}-v5", **PLAIN)
    gym.register_envs(ale_py)
    raw = gym.make(f"ALE/{name}-v5", frameskip=1, repeat_action_probability=0.0)
    theirs = AtariPreprocessing(raw, noop_max=0, frame_skip=4, screen_size=84)
    assert ours.action_space.n == theirs.action_space.n
    rng = np.random.default_rng(0)
    obs, info = ours.reset(seed=0)
    assert np.array_equal(obs, theirs.reset(seed=0)[0])
    seen = set()
    for _ in range(steps):
        action = int(rng.integers(ours.action_space.n))
        obs, *rest, info = ours.step(action)
        their_obs, *their_rest, their_info = theirs.step(action)
        assert np.array_equal(obs, their_obs)
        assert rest == their_rest
        assert info["lives"] == their_info["lives"]
        seen.add(obs.tobytes())
        if rest[1] or rest[2]:
            assert np.array_equal(ours.reset()[0], theirs.reset()[0])
    assert len(seen) > steps / 10


@pytest.mark.parametrize("name", GAMES)
def test_frames_are_those_of_gymnasiums_wrapper(name):
    compare_frames(name, 60)


@pytest.mark.long
@pytest.mark.parametrize("name", GAMES)
def test_a_thousand_frames_are_those_of_gymnasiums_wrapper(name):
    compare_frames(name, 1_000)


def first_frames(seed, games=None, **options):
    games = games or AtariGames("ALE/Pong-v5", 2, **options)
    frames = [games.reset(seed=seed)[0]]
    rng = np.random.default_rng(0)
    frames += [games.step(np.repeat(rng.integers(4, size=1), 2))[0] for _ in range(60)]
    return np.array(frames)


@pytest.mark.parametrize("options", [{"sticky_actions": 0.5}, {**PLAIN, "noop_max": 30}])
def test_chance_comes_from_the_seed_alone(options):
    frames = first_frames([3, 4], **options)
    assert frames.shape == (61, 2, 84, 84)
    assert np.array_equal(frames, first_frames([3, 4], **options))
    assert not np.array_equal(frames[:, 0], frames[:, 1])
    games = AtariGames("ALE/Pong-v5", 2, **options)
    assert np.array_equal(first_frames(3, games), frames)  # one seed: they count from it
    assert np.array_equal(first_frames([3, 4], games), frames)  # the same object again


def test_without_chance_all_seeds_are_the_same_and_options_change_the_frames():
    frames = first_frames([3, 4], **PLAIN)
    assert np.array_equal(frames[:, 0], frames[:, 1])
    for options in ({"fire_reset": True}, {"frame_skip": 2}):
        assert not np.array_equal(frames, first_frames([3, 4], **PLAIN, **options))
    assert first_frames([3, 4], frame_size=64, colour=True).shape == (61, 2, 64, 64, 3)
    assert first_frames(2**32 - 1).shape == frames.shape


def test_a_vector_of_games_has_the_options_of_their_builder_and_shares_threads():
    build = make_env_fn("ALE/Pong-v5", pixels=None, frame_size=44, colour=True, frame_skip=2)
    for workers in (False, True):
        games = make_vector_env(build, 3, workers=workers)
        assert isinstance(games, AtariGames)
        assert games.reset(seed=0)[0].shape == (3, 44, 44, 3)
        assert games.step(np.zeros(3, int))[4]["episode_frame_number"].tolist() == [2, 2, 2]
        games.close()


def test_lost_lives_end_windows_and_games_end_episodes():
    collector = Collector(AtariGames("ALE/Breakout-v5", 2, **PLAIN), seed=0, terminal_on_life_loss=True)
    rng = np.random.default_rng(0)
    rows, episodes = collector.collect(lambda obs: rng.integers(1, 4, size=len(obs)), 500)
    collector.close()
    assert len(episodes) >= 2
    for env in range(2):
        ends = np.flatnonzero(rows.last[:, env])
        assert len(ends)
        assert rows.terminated[: ends[0], env].sum() == 5  # lives of a game
        assert rows.terminated[ends[0] - 1, env]


def test_the_screen_is_drawn_in_its_own_size_and_colours():
    env = make_env_fn("ALE/Breakout-v5", pixels=None, frame_size=84, render=True, noop_max=30)()
    obs, _ = env.reset(seed=1)
    assert obs.shape == (84, 84)
    for _ in range(5):
        obs, *_ = env.step(1)
    screen = env.render()
    assert screen.shape == (210, 160, 3)
    assert len(np.unique(screen.reshape(-1, 3), axis=0)) > 5
    grey = np.asarray(Image.fromarray(screen).convert("L").resize((84, 84), Image.Resampling.BOX)).astype(int)
    assert np.abs(grey - obs).mean() < 2  # the same moment of the game
    env.close()


RUN = (
    "--env ALE/Breakout-v5 --frame-size 36 --total-frames 192 --num-envs 2 --frames-per-batch 64 --batch-size 8 "
    "--updates-per-batch 1 --warmup-frames 64 --evaluate-every 0 --evaluation-episodes 1 --max-episode-steps 8 "
    "--normalisation-frames 0 --noop-max 30 --fire-reset --sticky-actions 0 --terminal-on-life-loss --clip-rewards"
)


@pytest.mark.slow
@pytest.mark.parametrize("collector", ["sync", pytest.param("async", marks=pytest.mark.long)])
def test_a_run_trains_evaluates_plays_and_resumes(collector, tmp_path, capsys):
    run = tmp_path / "run"
    assert command("train", *RUN.split(), "--collector", collector, "--output", run) == 0
    assert jaxdqn.load(run).evaluate(1, max_episode_steps=5).cut == 1
    assert command("play", run, "--output", tmp_path / "game.gif", "--max-episode-steps", 8) == 0
    with Image.open(tmp_path / "game.gif") as picture:
        assert picture.n_frames > 1
    assert command("resume", run, "--total-frames", 256) == 0
    assert "they begin new episodes" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"frame_skip": 4}, "frame_skip 4 needs an Atari game, such as ALE/Pong-v5, not CartPole-v1: set it to None"),
        ({"fire_reset": False}, "fire_reset False needs an Atari game"),
        ({"env": "ALE/Pong-v5", "frame_skip": 0}, "frame_skip 0 must be from 1 to 1000"),
        ({"env": "ALE/Pong-v5", "sticky_actions": 1.5}, "sticky_actions 1.5 must be between 0 and 1"),
        ({"env": "ALE/Pong-v5", "noop_max": -1}, "noop_max -1 must be 0 or above"),
    ],
)
def test_options_that_cannot_be_used_are_refused(fields, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        jaxdqn.Config(**{**VECTORS.to_dict(), "pixels": None, **fields})


@pytest.mark.parametrize(("env", "says"), [("ALE/Pongg-v5", "Did you mean"), ("ALE/Pong-v4", "")])
def test_unknown_games_are_refused_in_one_line(env, says):
    with pytest.raises(ValueError, match=f"^env '{env}' cannot be made: ") as raised:
        make_env_fn(env, pixels=None)()
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("fire", [False, True])
def test_frames_without_an_action_are_from_0_to_noop_max(fire):
    games = AtariGames("ALE/Breakout-v5", 8, noop_max=2, fire_reset=fire)
    frames = np.concatenate([games.reset(seed=first)[1]["episode_frame_number"] for first in (0, 100)])
    assert set(frames.tolist()) == {fire + count for count in (0, 1, 2)}


def test_wrong_arguments_are_refused():
    game = AtariGame("ALE/Pong-v5")
    game.reset(seed=0)
    for action in (6, -1):  # ale-py would never return
        with pytest.raises(ValueError, match=r"must be from 0 to 5"):
            game.step(action)
    with pytest.raises(ValueError, match="num_envs 0 must be at least 1"):
        AtariGames("ALE/Pong-v5", 0)
    with pytest.raises(ValueError, match="env 'CartPole-v1' is not an Atari game"):
        AtariGames("CartPole-v1", 2)
    with pytest.raises(ValueError, match=r"^noop_max needs an Atari game"):
        make_env_fn("CartPole-v1", noop_max=3)
    with pytest.raises(ValueError, match="frame_skip 2 has no effect on your own env_fn"):
        next(iter(jaxdqn.train(jaxdqn.Config(env="ALE/Pong-v5", frame_skip=2), env_fn=lambda: gym.make("CartPole-v1"))))
    with pytest.raises(ValueError, match="restart_workers True has no effect on Atari games"):
        jaxdqn.Config(env="ALE/Pong-v5", collector="async", restart_workers=True)


def test_ids_need_no_module_and_options_are_those_of_atari_games_alone():
    config = jaxdqn.Config(env="ale_py:ALE/Pong-v5", frame_skip=2)
    assert config.env == "ALE/Pong-v5"
    assert config.for_env("CartPole-v1").frame_skip is None
    for same in ("ALE/Breakout-v5", "ale_py:ALE/Breakout-v5"):
        assert config.for_env(same).frame_skip == 2
    assert jaxdqn.Config(env="CartPole-v1", eval_env="ALE/Pong-v5", frame_skip=2).env_options == {"frame_skip": 2}
    env = make_env_fn("ale_py:ALE/Pong-v5", pixels=None, frame_size=84)()
    assert env.unwrapped.get_action_meanings()[:2] == ["NOOP", "FIRE"]
    env.close()


def test_a_game_must_be_reset_first_and_has_one_render_mode():
    with pytest.raises(gym.error.ResetNeeded):
        AtariGame("ALE/Pong-v5").step(0)
    with pytest.raises(ValueError, match="render_mode 'human' is not supported"):
        AtariGame("ALE/Pong-v5", render_mode="human")
