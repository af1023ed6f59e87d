"""Set up a run: inspect its environments, agree on sizes with other processes, and make the agent and its state."""

from __future__ import annotations

import contextlib
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import numpy as np

from jaxdqn.agent.agent import Agent, AgentState
from jaxdqn.checkpoints.agent_files import AgentSpec
from jaxdqn.checkpoints.process_parts import SavedState
from jaxdqn.config import Config
from jaxdqn.config_fields import is_atari
from jaxdqn.envs.functional.env import FunctionalEnv
from jaxdqn.envs.functional_by_id import functional_env, functional_form, with_observations
from jaxdqn.envs.gymnasium.building import make_env_fn_of, spec_of_env
from jaxdqn.envs.gymnasium.wrappers import name_of, running_statistics
from jaxdqn.envs.vector.episodes import has_action_masks
from jaxdqn.evaluation.trained_agent import build_eval_fn, check_same_env
from jaxdqn.learner import Params
from jaxdqn.loops.assemble import assemble_agent, free_memory, rollout_stats_of
from jaxdqn.loops.device_run import DeviceRun, bind_run
from jaxdqn.normalisation import put_obs_stats
from jaxdqn.observations import ObsSpec, stats_frames
from jaxdqn.parallel.mesh import share_of
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.replay.capacity import with_capacity
from jaxdqn.storage.free_memory import FreeMemory, machine_and_container, sharing_of
from jaxdqn.training.context import NO_OVERRIDES, Overrides, RunContext, RunControl
from jaxdqn.training.obs_stats import RolloutAhead, rollout_stats


class RunSetup(NamedTuple):
    """An agent and its initial state, ready to be trained.

    Attributes:
        spec: Actions and observations of the environment.
        agent: The pure functions.
        state: Their initial state.
        run: With loop "device": the agent combined with its functional environments; otherwise None.
    """

    spec: AgentSpec
    agent: Agent
    state: AgentState
    run: DeviceRun | None

    @property
    def stack(self) -> int | None:
        """Frames in a stack; None for vectors."""
        return self.spec.obs.stack


def inspect_env(env: gym.Env, frame_stack: int | None = None) -> AgentSpec:
    """Return the number of actions and the observations of an environment.

    Args:
        env: An environment that `make_env_fn` has built.
        frame_stack: Frames in a stack; see `Config`.
    """
    assert isinstance(env.action_space, gym.spaces.Discrete)  # `make_env_fn` has checked it
    return AgentSpec(int(env.action_space.n), spec_of_env(env, frame_stack))


def set_up_run(
    config: Config,
    overrides: Overrides,
    control: RunControl,
    started: float,
    *,
    saved: SavedState | None = None,
    rollout: RolloutAhead | None = None,
) -> tuple[RunContext, RunSetup]:
    """Return a run and its agent; the initial state is the same on all processes.

    Args:
        config: The run.
        overrides: What the user passes in place of what the config names.
        control: How the caller stops the run and hears from it.
        started: When this process started the run, in seconds of `time.monotonic`.
        saved: The state to resume from; None starts from scratch.
        rollout: See `make_setup`.

    Raises:
        ValueError: If the environments or the sizes cannot be used.
    """
    group = control.group
    with contextlib.ExitStack() as cleanup:
        with group.exchange() as exchange:
            if overrides.env_fn is not None and config.env_options and not is_atari(config.eval_env or ""):
                name, value = next(iter(config.env_options.items()))
                raise ValueError(f"{name} {value} has no effect on your own env_fn: set it to None")
            build = make_env_fn_of(config, env_fn=overrides.env_fn)
            env = cleanup.enter_context(contextlib.closing(build()))
            spec = inspect_env(env, config.frame_stack)
            wrapper = running_statistics(env)
            if wrapper is not None:
                control.say_once(
                    f"{wrapper} has separate statistics in each copy of env: evaluations see other numbers"
                )
            if config.eval_env is not None and overrides.eval_env_fn is not None:
                raise ValueError(f"eval_env {config.eval_env!r} and eval_env_fn are both given: give only one")
            build_eval = build_eval_fn(config, overrides.evaluation_env_fn(config))
            if config.eval_env is not None or overrides.eval_env_fn is not None:
                with contextlib.closing(build_eval()) as eval_env:
                    check_same_env(eval_env, spec, "evaluate on an environment with those of training")
            exchange.local = machine_and_container()
        sharing = sharing_of(exchange.gathered, group.index)
        with group.exchange() as exchange:
            free, masked = free_memory(config, sharing), has_action_masks(env)
            num_masked = spec.num_actions if masked else None
            exchange.local = with_capacity(config, spec.obs, free.for_obs, num_masked=num_masked).planned_capacity
        config = dataclasses.replace(config, capacity=min(exchange.gathered))
        with group.exchange():
            setup = make_setup(
                config,
                env,
                spec,
                overrides,
                rollout=rollout,
                fresh=saved is None and group.is_first,
                free=free,
                masked=masked,
            )
    if saved is None:
        learner, actor = setup.state.learner, setup.state.actor
        learner, params = group.broadcast_arrays((learner, actor.params))
        setup = setup._replace(state=setup.state._replace(learner=learner, actor=actor._replace(params=params)))
    needed = {"env_fn": overrides.evaluation_env_fn(config), "network": overrides.network}  # to load the agent
    custom = tuple(name for name, given in needed.items() if given is not None)
    setup = setup._replace(spec=setup.spec._replace(custom=custom))
    return RunContext(config, build, build_eval, overrides, control, started, saved), setup


def make_setup(
    config: Config,
    env: gym.Env,
    spec: AgentSpec,
    overrides: Overrides = NO_OVERRIDES,
    *,
    rollout: RolloutAhead | None = None,
    fresh: bool = True,
    free: FreeMemory | None = None,
    masked: bool | None = None,
) -> RunSetup:
    """Make an agent for an environment.

    Args:
        config: The run.
        env: One environment that `make_env_fn` has built.
        spec: The result of `inspect_env` for it.
        overrides: What the user passes in place of what the config names.
        rollout: A random rollout of `config.env` that has already started; None plays it here.
        fresh: Whether this process must compute the statistics of frames. If not, no rollout is played: the state on
            disk, or that of the first process, replaces them.
        free: Memory that replay may use; None measures it, for a process that shares it with no other.
        masked: The result of `has_action_masks`; None calls it.

    Raises:
        ValueError: If the environment or the sizes cannot be used.
    """
    obs, functional = spec.obs, None
    if config.loop == "device":
        functional = _functional_form(config, env, spec, overrides.env_fn is not None)
        masked = functional.action_mask is not None
    masked = has_action_masks(env) if masked is None else masked
    channels = obs.seen_shape[-1] if stats_frames(config, obs) else 0
    config, agent = assemble_agent(
        config,
        num_actions=spec.num_actions,
        obs=obs,
        obs_stats=ObservationStats(np.zeros(channels), np.ones(channels)) if channels else None,  # replaced below
        free=free or free_memory(config),
        num_processes=jax.process_count(),
        action_masks=masked,
        overrides=overrides.of_agent(),
    )
    if fresh:
        state = initial_state(agent, config, obs, functional or env, rollout)
    else:
        state = agent.init(jax.random.key(config.seed))
    run = None if functional is None else bind_run(share_of(config), agent, functional, obs)
    return RunSetup(spec, agent, state, run)


def _functional_form(config: Config, env: gym.Env, spec: AgentSpec, own_env: bool) -> FunctionalEnv:
    """Return the functional form of an environment; raise `ValueError` if it has none, or its observations differ."""
    seen: dict[str, Any] = {"pixels": spec.obs.is_image, "frame_size": config.frame_size}
    found = functional_form(env) if own_env else functional_env(config.env, **seen)
    functional, obs = with_observations(found, **seen, colour=config.colour, frame_stack=spec.obs.stack)
    if obs != spec.obs:
        raise ValueError(
            f"env {name_of(env)} has observations {obs.shape} on the device and {spec.obs.shape} in gymnasium: set "
            "pixels, frame_size and colour so that both are the same, or use --loop host"
        )
    return functional


def initial_state(
    agent: Agent,
    config: Config,
    obs: ObsSpec,
    env: gym.Env | FunctionalEnv,
    rollout: RolloutAhead | None = None,
) -> AgentState:
    """Return an agent's initial state, with the statistics of a random rollout if the config asks for them.

    The rollout is played, or waited for, while another thread compiles.
    """
    key = jax.random.key(config.seed)
    if not stats_frames(config, obs):
        return agent.init(key)

    if isinstance(env, FunctionalEnv):
        return _with_obs_stats(agent.init(key), rollout_stats_of(env, config, obs))

    def prepare() -> AgentState:
        state = agent.init(key)
        agent.internals.compile(state)
        return state

    with ThreadPoolExecutor(1, "compiler") as thread:
        prepared = thread.submit(prepare)
        stats = (rollout and rollout.result()) or rollout_stats(env, config)
        return _with_obs_stats(prepared.result(), stats)


def _with_obs_stats(state: AgentState, obs_stats: ObservationStats) -> AgentState:
    """Return a fresh state with these statistics in place of those that the agent was made with."""
    learner, actor = state.learner, state.actor

    def replace_stats(params: Params) -> Params:
        new = put_obs_stats(params, obs_stats)
        return jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), new, params)

    kept = (learner.params, learner.target_params, learner.average_params, actor.params)
    params, target_params, average, acting = (None if each is None else replace_stats(each) for each in kept)
    learner = learner._replace(params=params, target_params=target_params, average_params=average)
    return state._replace(learner=learner, actor=actor._replace(params=acting))
