"""What a run needs before it begins: its environments looked at, its agent made, its settings the same everywhere."""

from __future__ import annotations

import contextlib
import dataclasses

from jaxdqn.checkpoints.shards import Found
from jaxdqn.config import Config
from jaxdqn.distributed.processes import Peers
from jaxdqn.envs.gymnasium.wrappers import make_env_fn, running_statistics
from jaxdqn.evaluation.trained_agent import build_eval_fn, check_same_env
from jaxdqn.signals import Stop
from jaxdqn.storage.free_space import machine_and_container, sharing_of
from jaxdqn.training.context import Custom, Job, Say
from jaxdqn.training.obs_stats import RolloutAhead
from jaxdqn.training.setup import Assembled, assemble, free_memory, look_at_env, planned_capacity


def make_job(
    config: Config,
    custom: Custom,
    found: Found | None,
    started: float,
    stop: Stop,
    lines: tuple[Say, Say],
    peers: Peers,
    *,
    rollout: RolloutAhead | None = None,
) -> tuple[Job, Assembled]:
    """A run and its agent, whose first state is the first process's."""
    with contextlib.ExitStack() as held:
        with peers.together() as told:
            build = make_env_fn(
                config.env,
                pixels=config.pixels,
                frame_size=config.frame_size,
                colour=config.colour,
                env_fn=custom.env_fn,
            )
            env = held.enter_context(contextlib.closing(build()))
            spec = look_at_env(env, config.frame_stack)
            wrapper = running_statistics(env)
            if wrapper is not None and peers.first:
                lines[0](f"{wrapper} has statistics of its own in each copy of env: evaluations see other numbers")
            if config.eval_env is not None and custom.eval_env_fn is not None:
                raise ValueError(f"eval_env {config.eval_env!r} and eval_env_fn are both given: give one")
            build_eval = build_eval_fn(config, custom.played_on(config))
            if config.eval_env is not None or custom.eval_env_fn is not None:
                with contextlib.closing(build_eval()) as other:
                    check_same_env(other, spec, "evaluate on an environment with those of training")
            told.mine = machine_and_container()
        sharing = sharing_of(told.all, peers.index)
        with peers.together() as told:
            free = free_memory(config, sharing)
            told.mine = planned_capacity(config, spec, free)
        config = dataclasses.replace(config, capacity=min(told.all))
        with peers.together():
            parts = assemble(
                config,
                env,
                spec,
                network=custom.network,
                optimizer=custom.optimizer,
                loss=custom.loss,
                returns=custom.returns,
                rollout=rollout,
                own_env=custom.env_fn is not None,
                fresh=found is None and peers.first,
                free=free,
            )
    if found is None:
        learner, actor = parts.state.learner, parts.state.actor
        learner, params = peers.arrays_of_first((learner, actor.params))
        parts = parts._replace(state=parts.state._replace(learner=learner, actor=actor._replace(params=params)))
    needed = {"env_fn": custom.played_on(config), "network": custom.network}  # to load the agent
    own = tuple(name for name, given in needed.items() if given is not None)
    parts = parts._replace(spec=parts.spec._replace(custom=own))
    return Job(config, build, build_eval, custom, found, started, stop, *lines, peers), parts
