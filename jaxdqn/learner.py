"""The update: one jitted, pure function from a learner and a batch to the next learner and its metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped

from jaxdqn.averaging import polyak_update, polynomial_average
from jaxdqn.compilation import jit
from jaxdqn.networks.apply import Apply, NetworkKeys
from jaxdqn.objectives.objective import Estimates, Objective
from jaxdqn.types import Sample

Params = PyTree
QFunction = Callable[[Params, Shaped[Array, "B ..."]], Float[Array, "B A"]]
Metrics = dict[str, Float[Array, "*U"]]

EstimateKeys = tuple[NetworkKeys | None, ...]
"""Keys of the four evaluations of `Estimates`, in its order."""

METRICS = ("loss", "gradient_norm", "q_value")
"""Names of the metrics of every update; an objective may add its own."""


Update = Callable[..., tuple[Any, Metrics, Float[Array, "*U B"]]]
"""`(learner, sample, key=None) -> (learner, metrics, priority)`. See `make_update`."""


class LearnerState(NamedTuple):
    """The state of learning.

    Attributes:
        params: Online parameters.
        target_params: Polyak average or earlier copy of them.
        opt_state: State of the optimizer.
        num_updates: Updates done, int32.
        average_params: `polynomial_average` of the online parameters; None: none is kept.
    """

    params: Params
    target_params: Params
    opt_state: optax.OptState
    num_updates: Int[Array, ""]
    average_params: Params | None = None

    def greedy_params(self, which: Literal["online", "target", "average"]) -> Params:
        """Return the parameters of the greedy agent. Raise `ValueError` if there is no average."""
        if which == "average" and self.average_params is None:
            raise ValueError("no average is kept: set greedy_params average before the run begins")
        return {"online": self.params, "target": self.target_params, "average": self.average_params}[which]


def init_learner(params: Params, optimizer: optax.GradientTransformation, *, average: bool = False) -> LearnerState:
    """Return a learner before its first update; the target, and the average if there is one, start as copies."""
    return LearnerState(
        params=params,
        target_params=copy(params),
        opt_state=optimizer.init(params),
        num_updates=jnp.zeros((), jnp.int32),
        average_params=copy(params) if average else None,
    )


def make_optimizer(
    learning_rate: float | optax.Schedule,
    weight_decay: float = 0.0,
    max_gradient_norm: float | None = None,
    epsilon: float = 1e-8,
) -> optax.GradientTransformation:
    """Return Adam with coupled L2 decay, like `torch.optim.Adam(weight_decay=...)`: the decay is part of the gradient.

    Args:
        learning_rate: Learning rate, or a schedule of it over updates.
        weight_decay: `weight_decay * param` is added to the gradient, before the moments; also for biases.
        max_gradient_norm: Global norm to which gradients are clipped first; None: no clipping.
        epsilon: Number added to the root of the second moment.

    References:
        Kingma and Ba, Adam (2015); Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), on how
        coupled decay differs from AdamW's.
    """
    clip = optax.identity() if max_gradient_norm is None else optax.clip_by_global_norm(max_gradient_norm)
    return optax.chain(clip, optax.add_decayed_weights(weight_decay), optax.adam(learning_rate, eps=epsilon))


def make_update(
    apply: Apply,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    tau: float = 1.0,
    target_period: int = 1,
    micro_batch_size: int | None = None,
    axis_name: str | None = None,
) -> Update:
    """Make one jitted update from a network, an objective and an optimizer.

    The update takes the gradient of the weighted mean loss of the batch, steps the optimizer and then moves the target.

    Args:
        apply: The network with normalisation, from `make_apply`, or `apply_from` a function of your own.
        objective: Loss, priority and metrics of one sample. See `jaxdqn.objectives`.
        optimizer: Any optax transformation.
        tau: Fraction of the online parameters that enters the target, in [0, 1].
        target_period: Updates from one move of the target to the next; with `tau` 1, the target is then a copy.
        micro_batch_size: Samples whose gradient is computed at a time; must divide the batch. The average over
            micro-batches is mathematically the same, with a working set that fits the cache. None: the whole batch.
        axis_name: Mapped axis (of `jax.shard_map` or `jax.pmap`) over which gradients are averaged, if each device has
            a part of the batch; each device then returns its own metrics. None: one device.

    Returns:
        `update(state, sample, key=None) -> (state, metrics, priority [B])`, which donates `state`. Metrics are scalars:
        `loss` (weighted), `gradient_norm` (before clipping), `q_value` (mean of the values of the actions taken), and
        the means of the objective's own. The key is consumed; it must be the same on all devices. None: no randomness.
        Weights of the sample are divided by the largest of the batch, on all devices.

    Raises:
        ValueError: If `tau` is not in [0, 1] or `target_period` is below 1; from the update, if `micro_batch_size` does
            not divide the batch.

    References:
        Mnih et al., Human-level control through deep reinforcement learning (2015), algorithm 1; Schaul et al.,
        Prioritized Experience Replay (2016), section 3.4, on the weights.
    """
    if not 0 <= tau <= 1:
        raise ValueError(f"tau {tau} must be between 0 and 1")
    if target_period < 1:
        raise ValueError(f"target_period {target_period} must be at least 1")

    def batch_loss(params: Params, target_params: Params, sample: Sample, keys: EstimateKeys) -> tuple[Array, Any]:
        batch, weight = sample.batch, sample.weight
        fixed = jax.lax.stop_gradient(params)
        estimates = Estimates(
            online=apply(params, batch.obs, keys[0]),
            target=apply(target_params, batch.obs, keys[1]),
            next_online=apply(fixed, batch.next_obs, keys[2]),
            next_target=apply(target_params, batch.next_obs, keys[3]),
        )
        losses, priority, metrics = jax.vmap(objective)(estimates, batch)
        taken = jnp.take_along_axis(estimates.online.q_values, batch.action[:, None], axis=1)
        metrics = {name: values.mean() for name, values in metrics.items()}
        loss = (losses if weight is None else weight * losses).mean()
        return loss, (priority, {"q_value": taken.mean(), **metrics})

    value_and_grad = jax.value_and_grad(batch_loss, has_aux=True)

    def mean_gradient(learner: LearnerState, sample: Sample, keys: EstimateKeys) -> tuple[tuple[Array, Any], Params]:
        batch_size = sample.batch.action.shape[0]
        size = micro_batch_size or batch_size
        if size == batch_size:
            return value_and_grad(learner.params, learner.target_params, sample, keys)
        if batch_size % size:
            raise ValueError(f"micro_batch_size {size} does not divide batch_size {batch_size}: use a divisor of it")
        # The noise is that of the whole batch; everything else has an axis of samples.
        noise = [None if each is None else each.noise for each in keys]
        taus = [None if each is None else each.taus for each in keys]
        parts = jax.tree.map(lambda x: x.reshape(batch_size // size, size, *x.shape[1:]), (sample, taus))

        def gradient_of(part: tuple[Sample, Any]) -> Any:
            both = zip(noise, part[1], strict=True)
            part_keys = tuple(None if key is None else NetworkKeys(key, drawn) for key, drawn in both)
            return value_and_grad(learner.params, learner.target_params, part[0], part_keys)

        def add(total: Any, part: tuple[Sample, Any]) -> tuple[Any, Array]:
            (loss, (priority, metrics)), gradient = gradient_of(part)
            return jax.tree.map(jnp.add, total, ((loss, metrics), gradient)), priority

        (one_loss, (_, one_metrics)), one_gradient = jax.eval_shape(gradient_of, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), ((one_loss, one_metrics), one_gradient))
        total, priority = jax.lax.scan(add, zeros, parts)
        (loss, metrics), gradient = jax.tree.map(lambda x: x * (size / batch_size), total)
        return (loss, (priority.reshape(batch_size), metrics)), gradient

    def update(
        state: LearnerState, sample: Sample, key: Key[Array, ""] | None = None
    ) -> tuple[LearnerState, Metrics, Float[Array, " B"]]:
        keys = estimate_keys(key, sample.batch.action.shape[0], axis_name)
        (loss, (priority, metrics)), gradient = mean_gradient(state, sample, keys)
        largest = None if sample.weight is None else sample.weight.max()
        if axis_name is not None:
            gradient, largest = average_over_devices(gradient, largest, axis_name)
        if largest is not None:
            loss, gradient = jax.tree.map(lambda x: x / largest, (loss, gradient))
        steps, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, steps)
        updates = state.num_updates + 1
        target_params = params if tau == 1 else polyak_update(params, state.target_params, tau)
        if target_period > 1:
            due = updates % target_period == 0
            target_params = jax.tree.map(partial(jnp.where, due), target_params, state.target_params)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient), **metrics}
        average = state.average_params
        average = None if average is None else polynomial_average(params, average, updates)
        return LearnerState(params, target_params, opt_state, updates, average), metrics, priority

    return jit(update, donate_argnums=0)


def estimate_keys(key: Key[Array, ""] | None, batch_size: int, axis_name: str | None) -> EstimateKeys:
    """Return the keys of the networks' evaluations, in the order of `Estimates`; None without a key, which is consumed.

    The online, the selecting and the target network have independent noise, the same on all devices. Quantile fractions
    depend on the place of a sample in the batch of all devices, so that dividing the batch changes nothing.
    """
    if key is None:
        return (None,) * 4
    noise_key, taus_key = jax.random.split(key)
    online, selecting, target = jax.random.split(noise_key, 3)
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * batch_size
    keys = jax.vmap(jax.random.fold_in, (None, 0))(taus_key, first + jnp.arange(batch_size))
    taus = jax.vmap(partial(jax.random.split, num=4), out_axes=1)(keys)
    return tuple(map(NetworkKeys, (online, target, selecting, target), taus))


def average_over_devices(
    gradient: Params, largest: Float[Array, ""] | None, axis_name: str
) -> tuple[Params, Float[Array, ""] | None]:
    """Return the mean gradient and the largest weight of all devices; None if there are no weights.

    All travels as one vector: some backends send one array at a time, and each waits for all devices. Each device's
    weight has a place of its own in it.
    """
    count, index = jax.lax.psum(1, axis_name), jax.lax.axis_index(axis_name)
    slots = None if largest is None else jnp.zeros(count).at[index].set(largest * count)
    vector, unravel = ravel_pytree((gradient, slots))
    gradient, slots = unravel(jax.lax.pmean(vector, axis_name))
    return gradient, None if slots is None else slots.max()


def learn_if(can_sample: Bool[Array, ""], learn: Callable[[], tuple[Any, Metrics]], unchanged: Any) -> Any:
    """Return `learn()` if the ring can be sampled, otherwise the state `unchanged` and NaN for every metric."""

    def skip() -> tuple[Any, Metrics]:
        metrics = jax.eval_shape(learn)[1]
        return unchanged, jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), metrics)

    return jax.lax.cond(can_sample, learn, skip)


def copy(params: Params) -> Params:
    """Copy parameters to new buffers, which stay valid if the old ones are donated."""
    return jax.tree.map(jnp.copy, params)
