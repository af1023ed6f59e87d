"""The agent: a few pure functions over one state, made from a config by `make_agent`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, DTypeLike, Float, Int, Key, Shaped

from jaxdqn import exploration
from jaxdqn.augmentation import augment_batch, check_augmentation
from jaxdqn.compilation import jit, sequential_vmap_on_cpu
from jaxdqn.config import Config
from jaxdqn.learner import LearnerState, Metrics, Params, copy, init_learner, learn_if, make_update
from jaxdqn.losses import LOSSES, Loss
from jaxdqn.networks.architectures import make_network
from jaxdqn.networks.convolution import micro_batch_size
from jaxdqn.normalisation import freeze_obs_stats, init_params, make_q_values
from jaxdqn.observations import ObsSpec, spec_from
from jaxdqn.preprocessing import ObservationStats
from jaxdqn.replay import Replay, ReplayState, make_replay
from jaxdqn.returns import NStepReturn, n_step_return
from jaxdqn.schedules import config_optimizer, learning_start, with_capacity
from jaxdqn.types import Batch, Rows


class ActorState(NamedTuple):
    """The state that acting needs. `learn` donates none of it, so acting can run while the learner learns.

    Attributes:
        params: A copy of the online parameters, as of the last `learn`.
        key: Random key of exploration.
        frame: Frames acted on so far, int32; epsilon is a function of it.
    """

    params: Params
    key: Key[Array, ""]
    frame: Int[Array, ""]


class AgentState(NamedTuple):
    """Everything that determines the rest of a run, except the state of the environments.

    Attributes:
        learner: Parameters, target and optimizer state.
        replay: The ring of rows.
        actor: Parameters and key for acting.
        key: Random key of sampling.
    """

    learner: LearnerState
    replay: ReplayState
    actor: ActorState
    key: Key[Array, ""]


class Agent(NamedTuple):
    """Pure functions over an `AgentState`, made by `make_agent`; all but `compile` can be jitted, scanned and vmapped.

    Attributes:
        init: `(key) -> state`; the key is consumed.
        act: `(actor, obs [N, ...]) -> (actor, actions [N])`, epsilon-greedy.
        observe: `(state, rows [T, N, ...]) -> state`: adds rows to the ring; donates the ring.
        learn: `(state) -> (state, metrics [U])`: `sample`, then `update`, then the actor gets the new parameters;
            donates the learner. If the ring cannot be sampled yet, nothing changes and metrics are NaN.
        sample: `(replay, key) -> batches [U, B, ...]`: `draw`, then `augment`; the key is consumed.
        draw: `(replay, key) -> (windows [U, B, ...], keys [U])`, not before `learning_start`; the key is consumed. With
            `D` devices, each has its own keys: `[U, D]`.
        augment: `(keys, windows) -> batches`: shifts and mirrors windows from `draw`; the keys are consumed.
        update: `(learner, batches [U, B, ...]) -> (learner, metrics [U])`; donates it. `learn` ignores a replaced one.
        compile: `(state) -> None`: compiles `act`, and `learn` if replay is on the device; works in any thread.
        q_values: `(params, obs [N, ...]) -> [N, A]`.
        epsilon: `(frame) -> probability of a random action`.
        replay: The functions of the ring and its size in bytes.
        learning_start: Frames to collect before the first `learn`: enough for the warm-up and for one window.
    """

    init: Callable[[Key[Array, ""]], AgentState]
    act: Callable[[ActorState, Shaped[Any, "N ..."]], tuple[ActorState, Int[Array, " N"]]]
    observe: Callable[[AgentState, Rows], AgentState]
    learn: Callable[[AgentState], tuple[AgentState, Metrics]]
    sample: Callable[[ReplayState, Key[Array, ""]], Batch]
    draw: Callable[[ReplayState, Key[Array, ""]], tuple[Batch, Key[Array, "U ..."]]]
    augment: Callable[[Key[Array, "U ..."], Batch], Batch]
    update: Callable[[LearnerState, Batch], tuple[LearnerState, Metrics]]
    compile: Callable[[AgentState], None]
    q_values: Callable[[Params, Shaped[Any, "N ..."]], Float[Array, "N A"]]
    epsilon: Callable[[Int[Array, ""]], Float[Array, ""]]
    replay: Replay
    learning_start: int


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
    returns: NStepReturn = n_step_return,
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
        returns: Reward, discount and length of a window. See `n_step_return`.
        bytes_available: Memory that replay may use; None: no check.
        axis_name: Mapped axis, if each device has a part of the agent. See `make_update` and `jaxdqn.multi_device`.

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
    q_values = make_q_values(network, obs.scale)
    loop_over_seeds = sequential_vmap_on_cpu if obs.is_image else (lambda function: function)
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
        returns=returns,
        bytes_available=bytes_available,
    )
    update_once = make_update(
        q_values,
        optimizer,
        tau=config.tau,
        double=config.double,
        loss=LOSSES[config.loss] if loss is None else loss,
        micro_batch_size=micro_batch_size(config.batch_size) if obs.is_image else None,
        axis_name=axis_name,
    )

    def init(key: Key[Array, ""]) -> AgentState:
        params_key, actor_key, sample_key = jax.random.split(key, 3)
        learner = init_learner(init_params(network, params_key, obs.seen_shape, obs_stats), optimizer)
        actor = ActorState(copy(learner.params), actor_key, jnp.zeros((), jnp.int32))
        return AgentState(learner=learner, replay=replay.init(), actor=actor, key=sample_key)

    def epsilon(frame: Int[Array, ""]) -> Float[Array, ""]:
        start, end, duration = config.epsilon_start, config.epsilon_end, config.epsilon_duration
        return exploration.linear_epsilon(frame, start, end, duration, config.warmup_frames)

    def act(actor: ActorState, seen: Shaped[Array, "N ..."]) -> tuple[ActorState, Int[Array, " N"]]:
        key, explore_key = jax.random.split(actor.key)
        values = loop_over_seeds(q_values)(actor.params, seen)
        actions = exploration.epsilon_greedy(explore_key, values, epsilon(actor.frame))
        return actor._replace(key=key, frame=actor.frame + actions.shape[0]), actions

    def observe(state: AgentState, rows: Rows) -> AgentState:
        if not on_device and rows.obs.shape != rows.action.shape:
            raise ValueError(f"replay_storage {config.replay_storage!r} needs an agent from with_frame_store")
        return state._replace(replay=replay.add(state.replay, rows))

    def augment(keys: Key[Array, " U"], batches: Batch) -> Batch:
        one = partial(augment_batch, random_shift=config.random_shift, mirror=config.mirror, num_actions=num_actions)
        return jax.vmap(one)(keys, batches)

    def draw(ring: ReplayState, key: Key[Array, ""]) -> tuple[Batch, Key[Array, " U"]]:
        window_key, augment_key = jax.random.split(key)
        return replay.sample(ring, window_key), jax.random.split(augment_key, config.updates_per_batch)

    def update(learner: LearnerState, batches: Batch) -> tuple[LearnerState, Metrics]:
        return loop_over_seeds(partial(jax.lax.scan, update_once))(learner, batches)

    def sample(ring: ReplayState, key: Key[Array, ""]) -> Batch:
        windows, keys = draw(ring, key)
        return augment(keys, windows)

    def learn_from(learner: LearnerState, ring: ReplayState, key: Key[Array, ""]) -> Any:
        def learn() -> Any:
            next_key, sample_key = jax.random.split(key)
            learned, metrics = update(learner, sample(ring, sample_key))
            return (learned, next_key), metrics

        (learned, next_key), metrics = learn_if(replay.can_sample(ring), learn, (learner, key))
        return learned, copy(learned.params), next_key, metrics

    jitted_act, jitted_learn = jit(act), jit(learn_from, donate_argnums=0)

    def learn(state: AgentState) -> tuple[AgentState, Metrics]:
        learner, acting_params, key, metrics = jitted_learn(state.learner, state.replay, state.key)
        return state._replace(learner=learner, actor=state.actor._replace(params=acting_params), key=key), metrics

    def compile_loop(state: AgentState) -> None:
        jitted_act.lower(state.actor, jax.ShapeDtypeStruct((num_envs, *obs.seen_shape), obs.dtype)).compile()
        if on_device:  # otherwise `with_frame_store` has its own programs for learning
            jitted_learn.lower(state.learner, state.replay, state.key).compile()

    return Agent(
        init=jit(init),  # one program: called eagerly, it would compile each random draw separately
        act=jitted_act,
        observe=observe,
        learn=learn,
        sample=jit(sample),
        draw=jit(draw),
        augment=jit(augment),
        update=jit(update, donate_argnums=0),
        compile=compile_loop,
        q_values=jit(q_values),
        epsilon=epsilon,
        replay=replay,
        learning_start=start,
    )
