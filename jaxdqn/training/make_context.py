"""Prepare a run: inspect its environments, make its agent, and agree on settings with the other processes."""

from __future__ import annotations

import contextlib
import dataclasses

from jaxdqn.checkpoints.process_parts import SavedState
from jaxdqn.config import Config
from jaxdqn.envs.gymnasium.wrappers import make_env_fn, running_statistics
from jaxdqn.evaluation.trained_agent import build_eval_fn, check_same_env
from jaxdqn.replay.capacity import with_capacity
from jaxdqn.storage.free_memory import free_memory, machine_and_container, sharing_of
from jaxdqn.training.agent_setup import RunSetup, inspect_env, make_setup
from jaxdqn.training.context import Overrides, RunContext, RunControl
from jaxdqn.training.obs_stats import RolloutAhead


def make_context(
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
            build = make_env_fn(
                config.env,
                pixels=config.pixels,
                frame_size=config.frame_size,
                colour=config.colour,
                env_fn=overrides.env_fn,
            )
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
            free = free_memory(config, sharing)
            exchange.local = with_capacity(config, spec.obs, free.for_obs).planned_capacity
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
            )
    if saved is None:
        learner, actor = setup.state.learner, setup.state.actor
        learner, params = group.broadcast_arrays((learner, actor.params))
        setup = setup._replace(state=setup.state._replace(learner=learner, actor=actor._replace(params=params)))
    needed = {"env_fn": overrides.evaluation_env_fn(config), "network": overrides.network}  # to load the agent
    custom = tuple(name for name, given in needed.items() if given is not None)
    setup = setup._replace(spec=setup.spec._replace(custom=custom))
    return RunContext(config, build, build_eval, overrides, control, started, saved), setup
