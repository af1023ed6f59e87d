"""Make an agent: resolve a config and the shapes of an environment, and bind the agent's functions to them."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

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
from jaxdqn.augmentation import augment_batch, check_augmentation
from jaxdqn.compilation import jit, sequential_vmap_on_cpu
from jaxdqn.config import Config
from jaxdqn.learner import make_update
from jaxdqn.losses import LOSSES, Loss
from jaxdqn.networks.architectures import make_network
from jaxdqn.networks.convolution import micro_batch_size
from jaxdqn.normalisation import freeze_obs_stats, init_params, make_q_values
from jaxdqn.observations import ObsSpec, spec_from
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.replay.capacity import with_capacity
from jaxdqn.replay.ring import make_replay
from jaxdqn.returns import NStepReturn, n_step_return
from jaxdqn.schedules import config_epsilon, config_optimizer, learning_start


class AgentOverrides(NamedTuple):
    """A user's own network, optimizer, loss and returns in place of the config's; see `make_agent`."""

    network: nn.Module | None = None
    optimizer: optax.GradientTransformation | None = None
    loss: Loss | None = None
    returns: NStepReturn | None = None


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
    loss: Loss | None = None,
    returns: NStepReturn | None = None,
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
        network: Flax module from normalised observations to action values; None: the config's network. On the CPU
            build it from `jaxdqn.Conv`: `flax.linen.Conv` inside the scan over updates is 5 to 9 times slower.
            `config.random_shift` and `config.mirror` apply to your network as well.
        optimizer: An optax transformation; None: Adam with the settings of the config.
        loss: Loss of one TD error; None: the config's loss.
        returns: Reward, discount and length of a window; None: `n_step_return`.
        bytes_available: Memory that replay may use; None: no check.
        axis_name: Mapped axis, if each device has a part of the agent. See `make_update` and `make_parallel_agent`.

    Raises:
        ValueError: If replay is too small or does not fit in memory, the run ends before learning starts, images are
            too small for the config's network, observations to be shifted or mirrored are not images, or
            `config.compute_dtype` is not float32 and `network` is given.
    """
    num_envs = config.num_envs if num_envs is None else num_envs
    if obs is None:
        obs = spec_from(config, obs_shape, obs_dtype)
    config = with_capacity(config, obs, bytes_available)
    if network is None:
        network = make_network(config, num_actions, obs)
    elif config.compute_dtype != "float32":
        raise ValueError(f"compute_dtype {config.compute_dtype} has no effect on your network: set it to float32")
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
        bytes_available=bytes_available,
    )
    q_values = make_q_values(network, obs.scale)
    update_once = make_update(
        q_values,
        optimizer,
        tau=config.tau,
        double=config.double,
        loss=LOSSES[config.loss] if loss is None else loss,
        micro_batch_size=micro_batch_size(config.batch_size) if obs.is_image else None,
        axis_name=axis_name,
    )
    loop_over_seeds = sequential_vmap_on_cpu if obs.is_image else (lambda function: function)
    new_params = partial(init_params, network, obs_shape=obs.seen_shape, obs_stats=obs_stats)
    epsilon = config_epsilon(config)
    augment = jax.vmap(
        partial(augment_batch, random_shift=config.random_shift, mirror=config.mirror, num_actions=num_actions)
    )
    draw = partial(draw_windows, sample=replay.sample, updates=config.updates_per_batch)
    sample = partial(sample_batches, draw=draw, augment=augment)
    update = partial(update_batches, scan=loop_over_seeds(partial(jax.lax.scan, update_once)))
    act = jit(partial(act_epsilon_greedy, q_values=loop_over_seeds(q_values), epsilon=epsilon))
    learn = jit(partial(learn_from_ring, can_sample=replay.can_sample, sample=sample, update=update), donate_argnums=0)
    return Agent(
        # One program: called eagerly, it would compile each random draw separately.
        init=jit(partial(init_agent, new_params=new_params, optimizer=optimizer, new_ring=replay.init)),
        act=act,
        observe=partial(observe_rows, add=replay.add, storage=config.replay_storage),
        learn=partial(learn_agent, program=learn),
        q_values=jit(q_values),
        epsilon=epsilon,
        sample=jit(sample),
        update=jit(update, donate_argnums=0),
        replay=replay,
        learning_start=start,
        internals=AgentInternals(
            draw=jit(draw),
            augment=jit(augment),
            # Replay off the device has programs of its own for learning.
            compile=partial(compile_agent, act=act, learn=learn if on_device else None, obs=obs),
        ),
    )
