"""The update: one jitted, pure function from a learner and a batch to the next learner and its metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from jaxdqn.compilation import jit
from jaxdqn.losses import Loss, q_learning_td_error, squared_loss
from jaxdqn.types import Batch

Params = PyTree
QFunction = Callable[[Params, Shaped[Array, "B ..."]], Float[Array, "B A"]]
Metrics = dict[str, Float[Array, "*U"]]

METRICS = ("loss", "gradient_norm", "q_value")
"""Names of the metrics of an update."""


class LearnerState(NamedTuple):
    """The state of learning.

    Attributes:
        params: Online parameters.
        target_params: Polyak average of them.
        opt_state: State of the optimizer.
        num_updates: Updates done, int32.
    """

    params: Params
    target_params: Params
    opt_state: optax.OptState
    num_updates: Int[Array, ""]


def init_learner(params: Params, optimizer: optax.GradientTransformation) -> LearnerState:
    """Return a learner before its first update; the target starts as a copy of the parameters."""
    return LearnerState(
        params=params,
        target_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        num_updates=jnp.zeros((), jnp.int32),
    )


def polyak_update(params: Params, target_params: Params, tau: float) -> Params:
    """Return the new target: `(1 - tau) target + tau params`, leaf by leaf.

    References:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging (1992); Lillicrap et al.,
        Continuous control with deep reinforcement learning (2016), section 3.
    """
    return jax.tree.map(lambda new, old: old + tau * (new - old), params, target_params)


def make_optimizer(
    learning_rate: float | optax.Schedule, weight_decay: float = 0.0, max_gradient_norm: float | None = None
) -> optax.GradientTransformation:
    """Return Adam with coupled L2 decay, like `torch.optim.Adam(weight_decay=...)`: the decay is part of the gradient.

    Args:
        learning_rate: Learning rate, or a schedule of it over updates.
        weight_decay: `weight_decay * param` is added to the gradient, before the moments; also for biases.
        max_gradient_norm: Global norm to which gradients are clipped first; None: no clipping.

    References:
        Kingma and Ba, Adam (2015); Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), on how
        coupled decay differs from AdamW's.
    """
    clip = optax.identity() if max_gradient_norm is None else optax.clip_by_global_norm(max_gradient_norm)
    return optax.chain(clip, optax.add_decayed_weights(weight_decay), optax.adam(learning_rate))


def make_update(
    q_function: QFunction,
    optimizer: optax.GradientTransformation,
    *,
    tau: float,
    double: bool = False,
    loss: Loss = squared_loss,
    micro_batch_size: int | None = None,
    axis_name: str | None = None,
) -> Callable[[LearnerState, Batch], tuple[LearnerState, Metrics]]:
    """Make one jitted update from a network, an optimizer and a loss.

    The update takes the gradient of the mean loss of the batch, steps the optimizer and then moves the target.

    Args:
        q_function: `(params, obs [B, ...]) -> q_values [B, A]`, normalisation included.
        optimizer: Any optax transformation.
        tau: Fraction of the online parameters that enters the target after each update, in [0, 1].
        double: Whether the online network chooses the next action (double Q-learning).
        loss: Loss of one TD error.
        micro_batch_size: Samples whose gradient is computed at a time; must divide the batch. The average over
            micro-batches is mathematically the same, with a working set that fits the cache. None: the whole batch.
        axis_name: Mapped axis (of `jax.shard_map` or `jax.pmap`) over which gradients are averaged, if each device has
            a part of the batch; each device then returns its own metrics. None: one device.

    Returns:
        `update(state, batch) -> (state, metrics)`, which donates `state`. Metrics are scalars: `loss`,
        `gradient_norm` (before clipping), `q_value` (mean of the values of the actions taken).

    Raises:
        ValueError: If `tau` is not in [0, 1]; from the update, if `micro_batch_size` does not divide the batch.

    References:
        Mnih et al., Human-level control through deep reinforcement learning (2015), algorithm 1.
    """
    if not 0 <= tau <= 1:
        raise ValueError(f"tau {tau} must be between 0 and 1")

    def batch_loss(params: Params, target_params: Params, batch: Batch) -> tuple[Array, Array]:
        q_values = q_function(params, batch.obs)
        next_q_target = q_function(target_params, batch.next_obs)
        next_q_selector = jax.lax.stop_gradient(q_function(params, batch.next_obs)) if double else next_q_target
        td_error = jax.vmap(q_learning_td_error)(
            q_values, batch.action, batch.reward, batch.discount, next_q_target, next_q_selector
        )
        taken = jnp.take_along_axis(q_values, batch.action[:, None], axis=1)
        return jax.vmap(loss)(td_error).mean(), taken.mean()

    value_and_grad = jax.value_and_grad(batch_loss, has_aux=True)

    def mean_gradient(learner: LearnerState, batch: Batch) -> tuple[tuple[Array, Array], Params]:
        batch_size = batch.action.shape[0]
        size = micro_batch_size or batch_size
        if size == batch_size:
            return value_and_grad(learner.params, learner.target_params, batch)
        if batch_size % size:
            raise ValueError(f"micro_batch_size {size} does not divide batch_size {batch_size}: use a divisor of it")
        parts = jax.tree.map(lambda x: x.reshape(batch_size // size, size, *x.shape[1:]), batch)

        def add(total: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, value_and_grad(learner.params, learner.target_params, part)), None

        one = jax.eval_shape(value_and_grad, learner.params, learner.target_params, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), one)
        total, _ = jax.lax.scan(add, zeros, parts)
        return jax.tree.map(lambda x: x * (size / batch_size), total)

    def update(state: LearnerState, batch: Batch) -> tuple[LearnerState, Metrics]:
        (mean_loss, q_value), gradient = mean_gradient(state, batch)
        if axis_name is not None:
            # As one vector: some backends send one array at a time, and each waits for all devices.
            vector, unravel = ravel_pytree(gradient)
            gradient = unravel(jax.lax.pmean(vector, axis_name))
        steps, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, steps)
        metrics = dict(zip(METRICS, (mean_loss, optax.tree.norm(gradient), q_value), strict=True))
        new_state = LearnerState(
            params=params,
            target_params=polyak_update(params, state.target_params, tau),
            opt_state=opt_state,
            num_updates=state.num_updates + 1,
        )
        return new_state, metrics

    return jit(update, donate_argnums=0)


def learn_if(can_sample: Bool[Array, ""], learn: Callable[[], tuple[Any, Metrics]], unchanged: Any) -> Any:
    """Return `learn()` if the ring can be sampled, otherwise the state `unchanged` and NaN for every metric."""

    def skip() -> tuple[Any, Metrics]:
        metrics = jax.eval_shape(learn)[1]
        return unchanged, jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), metrics)

    return jax.lax.cond(can_sample, learn, skip)


def copy(params: Params) -> Params:
    """Copy parameters to new buffers, which stay valid if the old ones are donated."""
    return jax.tree.map(jnp.copy, params)
