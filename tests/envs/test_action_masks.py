"""Masks of allowed actions: respected when exploring, in targets and in evaluations, on both loops."""

import dataclasses

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from small_runs import equal
from stopped_runs import finish
from tables import GAMMA, Table, TableEnv, functional_env, optimal_values

import jaxdqn
from jaxdqn.algorithms import with_algorithm
from jaxdqn.envs.functional.adapters import GymnasiumEnv
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import make_vector_env
from jaxdqn.replay.capacity import check_capacity, row_bytes, with_capacity

# Two steps, three actions. What is not allowed would pay more than anything else.
MAZE = Table(
    obs=np.eye(3),
    following=np.array([[1, 2, 0], [0, 0, 0], [0, 0, 0]]),
    rewards=np.array([[0.0, 0.0, 9.0], [5.0, 1.0, -1.0], [0.5, 7.0, 7.0]])[..., None],
    terminated=np.array([[False, False, True], [True, True, True], [True, True, True]]),
    truncated=np.zeros((3, 3), bool),
    starts=1,
    masks=np.array([[True, True, False], [False, True, True], [True, False, False]]),
)
CONFIG = jaxdqn.Config(
    pixels=False,
    total_frames=2048,
    num_envs=4,
    frames_per_batch=32,
    batch_size=32,
    updates_per_batch=8,
    capacity=512,
    warmup_frames=256,
    gamma=GAMMA,
    n_steps=1,
    tau=0.1,
    learning_rate=5e-3,
    epsilon_end=0.5,
    evaluate_every=1024,
    evaluation_episodes=4,
)


def on_the_host():
    return TableEnv(MAZE)


def on_the_device():
    return GymnasiumEnv(functional_env(MAZE))


def test_optimal_values_of_the_maze_are_those_worked_out_by_hand():
    values = np.where(MAZE.masks, optimal_values(MAZE), np.nan)
    np.testing.assert_allclose(values[0], [GAMMA * 1.0, GAMMA * 0.5, np.nan])
    np.testing.assert_allclose(values[1], [np.nan, 1.0, -1.0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_fn", "changes"),
    [
        (on_the_host, {}),
        pytest.param(on_the_host, {"collector": "async"}, marks=pytest.mark.long),
        pytest.param(on_the_host, {"replay_storage": "host", "prioritized": True}, marks=pytest.mark.long),
        pytest.param(on_the_device, {"loop": "device"}, marks=pytest.mark.long),
        pytest.param(on_the_device, {"loop": "host"}, marks=pytest.mark.long),
    ],
    ids=["host", "async", "frame store", "device", "functional on the host"],
)
def test_a_run_takes_allowed_actions_only_learns_their_values_and_evaluates_with_them(env_fn, changes, tmp_path):
    config = dataclasses.replace(CONFIG, output=str(tmp_path / "run"), **changes)
    step = finish(jaxdqn.train(config, env_fn=env_fn))  # TableEnv raises if an action is not allowed
    rows = step.progress.state.replay.rows
    taken = np.take_along_axis(np.asarray(rows.mask), np.asarray(rows.action)[..., None], axis=2)[..., 0]
    assert np.all(taken | np.asarray(rows.last))
    agent = jaxdqn.load(tmp_path / "run", env_fn=env_fn)
    found = agent.q_values(np.eye(3, dtype=np.float32))
    np.testing.assert_allclose(found[MAZE.masks], optimal_values(MAZE)[MAZE.masks], atol=0.1)
    assert agent.evaluate(episodes=8).mean == 1.0
    assert np.asarray(agent.evaluate(episodes=4, seed=1).lengths).tolist() == [2] * 4


@pytest.mark.several
@pytest.mark.parametrize("name", [pytest.param("rainbow", marks=pytest.mark.long), "m-iqn"])
def test_noise_and_soft_policies_respect_masks(name):
    config = with_algorithm(dataclasses.replace(CONFIG, loop="device", total_frames=1024), name)
    run = jaxdqn.make_device_run(config, env=functional_env(MAZE))
    state, _ = jaxdqn.jit(run.train)(run.init(jax.random.key(0)))
    rows = state.agent.replay.rows
    taken = np.take_along_axis(np.asarray(rows.mask), np.asarray(rows.action)[..., None], axis=2)[..., 0]
    assert np.all(taken | np.asarray(rows.last))
    play = jaxdqn.make_device_evaluation(run.env, run.agent.q_values, episodes=8, frame_stack=None)
    assert np.all(np.asarray(play(state.agent.learner.params, jax.random.key(1))) <= 1.0)


@pytest.mark.several
def test_masks_are_in_checkpoints(tmp_path):
    config = dataclasses.replace(CONFIG, total_frames=512, evaluate_every=0, checkpoint_every=256, prioritized=True)
    ends = []
    for name, stop_after in (("one", None), ("two", 288)):
        steps = jaxdqn.train(dataclasses.replace(config, output=str(tmp_path / name)), env_fn=on_the_device)
        ends.append(finish(steps, stop_after))
    ends[1] = finish(jaxdqn.resume(tmp_path / "two", env_fn=on_the_device))
    assert equal(*(end.progress.state for end in ends))
    assert ends[0].progress.state.replay.rows.mask.any()


class InPlace(gym.vector.VectorEnv):
    """A native vector environment that writes its masks into the same array: only action `time % 3` is allowed."""

    num_envs = 2
    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012, as in gymnasium
    single_observation_space = observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    single_action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        self.time = 0
        self.mask = np.zeros((2, 3), np.int8)
        return self.observe()

    def observe(self):
        self.mask[:] = np.arange(3) == self.time % 3
        return np.full((2, 1), self.time, np.float32), {"action_mask": self.mask}

    def step(self, actions):
        assert np.all(actions == self.time % 3)
        self.time += 1
        obs, infos = self.observe()
        return obs, np.ones(2), np.zeros(2, bool), np.zeros(2, bool), infos


def test_masks_of_a_native_vector_environment_are_copied():
    collector = Collector(InPlace(), seed=0)
    agent = jaxdqn.make_agent(CONFIG, num_actions=3, obs_shape=(1,), obs_dtype=np.float32, action_masks=True)
    state = agent.init(jax.random.key(0))
    actor = state.actor

    def act(obs, mask):
        nonlocal actor
        actor, actions = agent.act(actor, obs, mask)
        return np.asarray(actions)

    rows, _ = collector.collect(act, 7)
    assert rows.mask.dtype == bool
    np.testing.assert_array_equal(rows.mask.argmax(axis=2), np.tile(np.arange(7)[:, None] % 3, (1, 2)))
    np.testing.assert_array_equal(rows.action, rows.mask.argmax(axis=2))


class Faulty(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, first, later):
        self.first, self.later = first, later

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {} if self.first is None else {"action_mask": np.array(self.first)}

    def step(self, action):
        infos = {} if self.later is None else {"action_mask": np.array(self.later)}
        return np.zeros(1, np.float32), 0.0, False, False, infos


@pytest.mark.parametrize(
    ("first", "later", "says"),
    [
        (None, [1, 1], "gives info\\['action_mask'\\] in step and not in reset"),
        ([1, 1], None, "gives info\\['action_mask'\\] in reset and not in step"),
        ([1, 1, 1], [1, 1, 1], "action_mask"),
    ],
)
def test_masks_that_are_wrong_are_refused(first, later, says):
    envs = make_vector_env(lambda: Faulty(first, later), 2)
    with pytest.raises(ValueError, match=says):
        Collector(envs, seed=0).collect(lambda obs, mask=None: np.zeros(2, int), 2)
    envs.close()


class Short(gym.Env):
    """Episodes of one step with reward 1; the final observation has a mask only if it is asked for."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, truncates):
        self.truncates = truncates

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {"action_mask": np.array([0, 1])}

    def step(self, action):
        return np.ones(1, np.float32), 1.0, not self.truncates, self.truncates, {}


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_a_terminal_state_needs_no_mask_and_a_truncated_one_does(num_envs, mode):
    def collect(truncates):
        envs = gym.vector.SyncVectorEnv([lambda: Short(truncates)] * num_envs, autoreset_mode=mode)
        return Collector(envs, seed=0).collect(lambda obs, mask: np.ones(num_envs, int), 4)[0]

    rows = collect(truncates=False)
    np.testing.assert_array_equal(rows.last[:, 0], [False, True, False, True])
    assert rows.mask[rows.last].all()
    np.testing.assert_array_equal(rows.mask[~rows.last], [[False, True]] * 2 * num_envs)
    if mode != AutoresetMode.SAME_STEP:  # there the final mask is in `final_info`, which is optional
        with pytest.raises(ValueError, match="in reset and not in step"):
            collect(truncates=True)


def test_a_mask_takes_a_byte_for_each_action():
    assert row_bytes((4,), np.float32, num_actions=18) == row_bytes((4,), np.float32) + 18
    obs = jaxdqn.ObsSpec((4,), np.float32)
    config = dataclasses.replace(CONFIG, capacity=None, total_frames=100_000)
    plain, masked = (with_capacity(config, obs, 10**6, num_masked=masked).capacity for masked in (None, 18))
    assert masked / plain == pytest.approx((16 + 14) / (16 + 14 + 18), rel=1e-3)
    check_capacity(dataclasses.replace(config, capacity=1000), obs, 30_008)
    with pytest.raises(ValueError, match="capacity 1000 needs 48,008 bytes"):
        check_capacity(dataclasses.replace(config, capacity=1000), obs, 30_008, num_masked=18)


def test_random_actions_are_uniform_over_the_allowed_ones():
    agent = jaxdqn.make_agent(CONFIG, num_actions=3, obs_shape=(1,), obs_dtype=np.float32, action_masks=True)
    mask = jnp.tile(jnp.array([[True, False, True]]), (4000, 1))
    _, actions = agent.act(agent.init(jax.random.key(0)).actor, jnp.zeros((4000, 1)), mask)  # at frame 0: random
    counts = np.bincount(np.asarray(actions), minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] - 2000) < 5 * np.sqrt(1000)
