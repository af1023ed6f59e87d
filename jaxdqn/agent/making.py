"""Make an agent: resolve a config and the shapes of an environment, and bind the agent's functions to them."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import DTypeLike

from jaxdqn.agent.agent import Agent, AgentInternals
from jaxdqn.agent.functions import (
    act_epsilon_greedy,
    compile_agent,
    draw_windows,
    init_agent,
    learn_agent,
    learn_from_ring,
    observe_rows,
    sample_batches,
    update_batches,
)
from jaxdqn.agent.overrides import check_network, objective_metrics, pick_objective
from jaxdqn.augmentation import augment_batch, check_augmentation
from jaxdqn.compilation import jit, sequential_vmap_on_cpu
from jaxdqn.config import Config
from jaxdqn.distributions import num_taus
from jaxdqn.learner import METRICS, LearnerState, make_update
from jaxdqn.networks.apply import make_apply, q_values_of
from jaxdqn.networks.architectures import make_network
from jaxdqn.networks.convolution import micro_batch_size
from jaxdqn.normalisation import freeze_obs_stats, init_params
from jaxdqn.objectives.losses import Loss
from jaxdqn.objectives.objective import Objective
from jaxdqn.observations import ObsSpec, spec_from
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.replay.capacity import with_capacity
from jaxdqn.replay.ring import make_replay
from jaxdqn.returns import NStepReturn, n_step_return
from jaxdqn.schedules import config_beta, config_epsilon, config_optimizer, learning_start
from jaxdqn.types import Sample


def make_agent(
    config: Config,
    *,
    num_actions: int,
    obs: ObsSpec | None = None,
    obs_shape: tuple[int, ...] | None = None,
    obs_dtype: DTypeLike | None = None,
    obs_stats: ObservationStats | None = None,
    num_envs: int | None = None,
    network: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    objective: Objective | None = None,
    loss: Loss | None = None,
    returns: NStepReturn | None = None,
    action_masks: bool = False,
    bytes_available: int | None = None,
    axis_name: str | None = None,
) -> Agent:
    """Make an agent from a config and the shapes of an environment.

    If `config.replay_storage` is not "device", the ring holds the indices of frames instead of observations: wrap the
    agent with `with_frame_store` before it observes and learns.

    Args:
        config: Configuration of the run.
        num_actions: Number of discrete actions.
        obs: Spec of the observations, from `spec_of_env`.
        obs_shape: Shape of one observation, with `obs_dtype` an alternative to `obs`. See `observations.spec_from`.
        obs_dtype: Dtype of an observation in replay.
        obs_stats: Mean and deviation of a stack's channels, kept among the parameters; None: bytes are only scaled.
        num_envs: Environments stepped in lockstep; None: `config.num_envs`.
        network: Flax module from normalised observations to `QOutputs` or action values `[N, A]`; None: the config's.
            With `config.distribution` "iqn" its second argument is quantile fractions `[N, T]`, or missing. On the CPU
            build it from `jaxdqn.Conv`: `flax.linen.Conv` inside the scan over updates is 5 to 9 times slower.
            `config.random_shift` and `config.mirror` apply to your network as well.
        optimizer: An optax transformation; None: Adam with the settings of the config.
        objective: What an update minimises (see `jaxdqn.objectives`); None: the config's objective.
        loss: Loss of one TD error, a shorthand for `objective=q_learning(loss, double=config.double)`.
        returns: Reward, discount and length of a window; None: `n_step_return`.
        action_masks: Whether rows have masks of the actions that are allowed.
        bytes_available: Memory that replay may use; None: no check.
        axis_name: Mapped axis, if each device has a part of the agent. See `make_update` and `make_parallel_agent`.

    Raises:
        ValueError: If replay is too small or does not fit in memory, the run ends before learning starts, images are
            too small for the config's network, observations to be shifted or mirrored are not images, or
            `network` or `objective` does not fit the config (see `agent.overrides`).
    """
    num_envs = config.num_envs if num_envs is None else num_envs
    if obs is None:
        obs = spec_from(config, obs_shape, obs_dtype)
    num_masked = num_actions if action_masks else None
    config = with_capacity(config, obs, bytes_available, num_masked=num_masked)
    is_own = network is not None
    if network is None:
        network = make_network(config, num_actions, obs)
    elif config.compute_dtype != "float32":
        raise ValueError(f"compute_dtype {config.compute_dtype} has no effect on your network: set it to float32")
    own_objective = objective is not None
    objective = pick_objective(config, objective, loss)
    check_augmentation(obs, random_shift=config.random_shift, mirror=config.mirror)
    start = learning_start(config, num_envs, obs.stack or 1)
    optimizer = config_optimizer(config, num_envs, obs.stack or 1) if optimizer is None else optimizer
    if obs_stats is not None:
        optimizer = freeze_obs_stats(optimizer)
    on_device = config.replay_storage == "device"
    replay = make_replay(
        capacity=config.planned_capacity,
        num_envs=num_envs,
        obs_shape=obs.shape if on_device else (),  # otherwise it holds indices into the frame store
        obs_dtype=np.dtype(obs.dtype) if on_device else jnp.int32,
        batch_shape=(config.updates_per_batch, config.batch_size),
        n_steps=config.n_steps,
        gamma=config.gamma,
        stack=obs.stack,
        returns=n_step_return if returns is None else returns,
        priority_alpha=config.priority_alpha if config.prioritized else None,
        num_actions=num_masked,
        bytes_available=bytes_available,
        axis_name=axis_name,
    )
    apply = make_apply(network, obs.scale, num_taus(config))
    q_values = q_values_of(apply)
    update_once = make_update(
        apply,
        objective,
        optimizer,
        tau=config.tau if config.target_period is None else 1.0,
        target_period=config.target_period or 1,
        micro_batch_size=micro_batch_size(config.batch_size) if obs.is_image else None,
        axis_name=axis_name,
    )
    loop_over_seeds = sequential_vmap_on_cpu if obs.is_image else (lambda function: function)
    new_params = partial(init_params, network, obs_shape=obs.seen_shape, obs_stats=obs_stats)
    if is_own:
        check_network(apply, new_params, obs, num_actions=num_actions, noisy=config.noisy)
    epsilon, beta = config_epsilon(config), config_beta(config)
    augment = jax.vmap(
        partial(augment_batch, random_shift=config.random_shift, mirror=config.mirror, num_actions=num_actions)
    )
    own_metrics: tuple[str, ...] = ()
    if is_own or own_objective or config.distribution != "none":  # tracing it takes 0.1 s
        own_metrics = objective_metrics(objective, apply, new_params, obs, num_masked=num_masked)
    draw = partial(draw_windows, sample=replay.sample, updates=config.updates_per_batch)
    sample = partial(sample_batches, draw=draw, augment=augment)

    def step(learner: LearnerState, inputs: tuple[Sample, Any]) -> tuple[LearnerState, Any]:
        learner, *results = update_once(learner, *inputs)
        return learner, results

    update = partial(update_batches, scan=loop_over_seeds(partial(jax.lax.scan, step)))
    act_values = loop_over_seeds(q_values)
    act = jit(partial(act_epsilon_greedy, q_values=act_values, epsilon=epsilon, noisy=config.noisy))
    learn = jit(
        partial(
            learn_from_ring,
            beta=beta,
            can_sample=replay.can_sample,
            sample=sample,
            update=update,
            update_priorities=replay.update_priorities,
            updates=config.updates_per_batch,
        ),
        donate_argnums=0,
    )
    return Agent(
        # One program: called eagerly, it would compile each random draw separately.
        init=jit(
            partial(
                init_agent,
                new_params=new_params,
                optimizer=optimizer,
                new_ring=replay.init,
                average=config.greedy_params == "average",
            )
        ),
        act=act,
        observe=partial(observe_rows, add=replay.add, storage=config.replay_storage),
        learn=partial(learn_agent, program=learn),
        q_values=jit(q_values),
        epsilon=epsilon,
        beta=beta,
        sample=jit(sample),
        update=jit(update, donate_argnums=0),
        replay=replay,
        learning_start=start,
        internals=AgentInternals(
            draw=jit(draw),
            augment=jit(augment),
            # Replay off the device has programs of its own for learning.
            compile=partial(compile_agent, act=act, learn=learn if on_device else None, obs=obs),
            metric_names=(*METRICS, *own_metrics),
        ),
    )
