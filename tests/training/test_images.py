"""Whole runs with all kinds of images (colour, grids, floats), in both loops and all replay storages."""

import dataclasses

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from image_envs import RandomObs, box
from whole_runs import VECTORS, finish, table

import jaxdqn
from jaxdqn.envs.functional.adapters import GymnasiumEnv
from jaxdqn.envs.functional.env import FunctionalEnv, time_limit
from jaxdqn.envs.gymnasium.building import make_env_fn, spec_of_env
from jaxdqn.envs.registry import register_env
from jaxdqn.loops.assemble import make_device_run
from jaxdqn.loops.device_loop import device_loop
from jaxdqn.observations import ObsSpec
from jaxdqn.preprocessing import observation_stats
from jaxdqn.types import Rows

TINY = dataclasses.replace(VECTORS, pixels=None, network="auto", total_frames=192, warmup_frames=64, evaluate_every=96)


def make_grid(*, pixels=True, frame_size=64, side=10, channels=3, dtype=np.bool_):
    """Return a functional grid with one marked cell that moves at each step; action 1 gives reward 1."""

    def observe(state):
        cell = jnp.zeros((side, side, channels), bool).at[state % side, (state * 2) % side, state % channels].set(True)
        return cell if dtype == np.bool_ else cell.astype(dtype)

    def step(key, state, action):
        now = state + 1
        return now, observe(now), action.astype(jnp.float32), now >= 7, jnp.bool_(False)

    return FunctionalEnv(
        reset=lambda key: (jnp.int32(0), observe(jnp.int32(0))),
        step=step,
        observation_space=gym.spaces.Box(0, 1, (side, side, channels), dtype),
        action_space=gym.spaces.Discrete(2),
        observe=observe,
    )


KINDS = {
    "boolean grid": (box((10, 10, 4), np.bool_), {}),
    "stacked grid": (box((6, 9, 2)), {"frame_stack": 3}),
    "small grey image": (box((12, 8)), {"frame_stack": 2}),
    "floats, channels first": (box((5, 12, 10), np.float32), {}),
    "colour": (box((50, 40, 3)), {"colour": True, "frame_size": 40}),
    "colour, normalised, shifted, mirrored": (
        box((50, 40, 3)),
        {"colour": True, "frame_size": 40, "normalisation_frames": 20, "mirror": True, "random_shift": 3},
    ),
    "frames already stacked": (box((4, 44, 44)), {}),
    "two pixels": (box((1, 2)), {}),
}


LONGER = (
    "stacked grid",
    "small grey image",
    "colour",
    "frames already stacked",
    "two pixels",
    "floats, channels first",
)
MARKS = {
    **dict.fromkeys(LONGER, pytest.mark.long),
    "colour, normalised, shifted, mirrored": pytest.mark.several,
    "boolean grid": pytest.mark.long,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=MARKS.get(kind, ())) for kind in KINDS])
def test_a_run_trains_and_resumes_with_every_kind_of_image(kind, tmp_path):
    space, fields = KINDS[kind]
    config = dataclasses.replace(TINY, **fields, checkpoint_every=96)

    def env_fn():
        return RandomObs(space)

    run = finish(config, tmp_path / "run", env_fn=env_fn)
    spec = spec_of_env(
        make_env_fn("", pixels=None, env_fn=env_fn, frame_size=config.frame_size, colour=config.colour)()
    )
    agent = jaxdqn.load(run, env_fn=env_fn)
    assert agent.spec.obs == spec._replace(stack=config.frame_stack or spec.stack)
    seen = np.zeros((3, *agent.spec.obs.seen_shape), agent.spec.obs.dtype)
    assert agent(seen).shape == (3,)
    assert agent.evaluate(3).lengths == [5] * 3
    assert all(np.isfinite(float(row["loss"])) for row in table(run / "metrics.csv") if row["loss"])
    *_, end = jaxdqn.resume(run, total_frames=256, env_fn=env_fn, say=lambda note: None)
    assert end.progress.state.replay.rows.obs.shape[2:] == agent.spec.obs.shape
    assert end.progress.state.replay.rows.obs.dtype == agent.spec.obs.dtype


@pytest.mark.usefixtures("default_compilation")
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("storage", ["host", "disk"])
def test_losses_on_colour_stacks_do_not_depend_on_the_replay_storage(storage, tmp_path):
    def losses(name, **fields):
        config = dataclasses.replace(TINY, colour=True, frame_size=36, frame_stack=2, evaluate_every=0, **fields)
        run = finish(config, tmp_path / name, env_fn=lambda: RandomObs(box((40, 50, 3))))
        return [row["loss"] for row in table(run / "metrics.csv")]

    assert losses(storage, replay_storage=storage) == losses("device")


@pytest.mark.slow
@pytest.mark.long
def test_the_device_loop_and_the_host_loop_store_the_same_grid(tmp_path):
    """One environment in both loops: replay and the input of the network are the same."""
    register_env("mine/Grid-v0", functional=make_grid)
    try:
        for loop in ("host", "device"):
            config = dataclasses.replace(TINY, env="mine/Grid-v0", loop=loop)
            finish(config, tmp_path / loop)
        agents = [jaxdqn.load(tmp_path / loop) for loop in ("host", "device")]
        assert agents[0].spec == agents[1].spec
        assert agents[0].spec.obs == ObsSpec((10, 10, 3), np.dtype(np.uint8), 1, 1.0)
        *_, end = jaxdqn.resume(tmp_path / "device", total_frames=256)
        rows = end.progress.state.replay.rows
        step = np.asarray(rows.episode_step)[:20, 0]
        expected = [np.asarray(make_grid().observe(jnp.int32(index))) for index in step]
        np.testing.assert_array_equal(rows.obs[:20, 0], expected)
        assert np.asarray(rows.obs).max() == 1
    finally:
        del gym.registry["mine/Grid-v0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "channels", "dtype", "fields", "spec"),
    [
        pytest.param(*(10, 4, np.bool_, {}, ObsSpec((10, 10, 4), np.dtype(np.uint8), 1, 1.0)), marks=pytest.mark.long),
        (48, 3, np.float32, {"frame_size": 36}, ObsSpec((36, 36), np.dtype(np.uint8), 4, 255.0)),
        pytest.param(
            *(48, 3, np.uint8, {"frame_size": 36, "colour": True}, ObsSpec((36, 36, 3), np.dtype(np.uint8), 4, 255.0)),
            marks=pytest.mark.long,
        ),
        pytest.param(
            *(40, 5, np.float32, {"frame_stack": 2}, ObsSpec((40, 40, 5), np.dtype(np.float32), 2, 1.0)),
            marks=pytest.mark.long,
        ),
    ],
    ids=str,
)
@pytest.mark.long
def test_images_of_functional_environments_are_stored_like_those_of_gymnasium(side, channels, dtype, fields, spec):
    config = dataclasses.replace(TINY, loop="device", total_frames=96, evaluate_every=0, **fields)
    env = make_grid(side=side, channels=channels, dtype=dtype)
    run = make_device_run(config, env=env)
    assert run.obs == spec
    seen = {"frame_size": config.frame_size, "colour": config.colour}
    assert spec_of_env(make_env_fn("", env_fn=lambda: GymnasiumEnv(env), **seen)(), config.frame_stack) == spec
    *_, end = device_loop(run, run.init(jax.random.key(0)), config)
    assert end.state.replay.rows.obs.shape[2:] == spec.shape
    assert np.asarray(end.state.replay.rows.obs).any()
    assert np.isfinite(end.metrics["loss"])


@pytest.mark.parametrize(
    ("value", "wrong", "says"),
    [(np.nan, 0, "first image"), pytest.param(np.nan, 3, "image", marks=pytest.mark.long), (1.5, 3, "image")],
)
def test_an_invalid_float_image_on_the_device_stops_the_run_although_bytes_are_stored(value, wrong, says):
    env = make_grid(side=48, channels=3, dtype=np.float32)

    def spoiled(state, obs):
        return jnp.where(state == wrong, value, obs)

    def reset(key):
        state, obs = env.reset(key)
        return state, spoiled(state, obs)

    def step(key, state, action):
        state, obs, *rest = env.step(key, state, action)
        return state, spoiled(state, obs), *rest

    config = dataclasses.replace(TINY, loop="device", frame_size=36, evaluate_every=0)
    run = make_device_run(config, env=time_limit(env._replace(reset=reset, step=step, observe=None), 5))
    frame = 4 * max(wrong - 1, 0) + 1
    with pytest.raises(FloatingPointError, match=rf"the {says} of environment 0 is not finite.*at frame {frame}"):
        list(device_loop(run, run.init(jax.random.key(0)), config))


def test_the_network_sees_bytes_scaled_to_1_and_floats_unchanged():
    seen = []

    class Spy(jaxdqn.DuelingMLP):
        def __call__(self, obs):
            jax.debug.callback(lambda x: seen.append(np.array(x)), obs)
            return super().__call__(obs)

    config = dataclasses.replace(TINY, pixels=False, total_frames=256)
    for dtype, scale, given, expected in (
        (np.uint8, 255.0, [0, 51, 255], [0, 0.2, 1]),
        (np.uint8, 1.0, [0, 1, 1], [0, 1, 1]),
        (np.uint8, 10.0, [0, 5, 10], [0, 0.5, 1]),
        (np.float32, 1.0, [-3.5, 0, 7], [-3.5, 0, 7]),
    ):
        agent = jaxdqn.make_agent(config, num_actions=2, obs=ObsSpec((3,), dtype, None, scale), network=Spy(2))
        seen.clear()
        agent.q_values(agent.init(jax.random.key(0)).learner.params, np.array([given], dtype))
        jax.effects_barrier()
        np.testing.assert_allclose(seen[-1], [expected], rtol=1e-6)


def test_statistics_respect_the_dtype():
    rng = np.random.default_rng(0)
    floats = rng.random((20, 5, 5, 2)).astype(np.float32)
    stats = observation_stats(floats)
    np.testing.assert_allclose(stats.mean, floats.reshape(-1, 2).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(stats.std, floats.reshape(-1, 2).std(axis=0, ddof=1), rtol=1e-5)
    truths = observation_stats(floats > 0.5)
    np.testing.assert_allclose(truths.mean, (floats > 0.5).reshape(-1, 2).mean(axis=0), rtol=1e-6)
    few = observation_stats((floats * 10).astype(np.uint8), scale=10.0)
    assert ((few.mean > 0.4) & (few.mean < 0.5)).all()


def test_replay_of_colour_frames_samples_the_windows_of_a_brute_force_model():
    """Every pixel encodes its frame, environment and channel."""
    shape, stack, slots, envs = (2, 3, 3), 2, 12, 2
    sizes = {"capacity": slots * envs, "num_envs": envs, "obs_shape": shape, "obs_dtype": np.uint8, "stack": stack}
    replay = jaxdqn.make_replay(**sizes, batch_shape=(64,), n_steps=2, gamma=0.5)
    length = 17  # wraps
    time = np.arange(length)[:, None].repeat(envs, axis=1)
    obs = (time[..., None, None, None] * 10 + np.arange(envs)[:, None, None, None] * 3 + np.arange(3)).astype(np.uint8)
    obs = np.broadcast_to(obs, (length, envs, *shape))
    zeros = np.zeros((length, envs))
    last = time % 6 == 5
    rows = Rows(obs, time.astype(np.int32), zeros.astype(np.float32), last * 0 > 1, last, (time % 6).astype(np.int32))
    state = replay.init()
    for start in range(0, length, 4):
        state = replay.add(state, jax.tree.map(lambda x, s=start: jnp.asarray(x[s : s + 4]), rows))
    batch = replay.sample(state, jax.random.key(0)).batch
    assert batch.obs.shape == (64, 2, 3, 6)
    for t, first, after in zip(
        np.asarray(batch.action), np.asarray(batch.obs), np.asarray(batch.next_obs), strict=True
    ):
        env = (first[0, 0, -3] - 10 * t) // 3
        steps = min(2, 5 - t % 6)
        for moment, found in ((t, first), (t + steps, after)):
            back = max(moment - 1, moment - moment % 6)
            np.testing.assert_array_equal(found, np.concatenate([obs[back, env], obs[moment, env]], axis=-1))
