"""An agent: its state, and the signatures of its functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int, Key, Shaped

from jaxdqn.learner import LearnerState, Metrics, Params
from jaxdqn.replay.ring import Replay, ReplayState
from jaxdqn.types import Batch, Rows, Sample


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


class AgentInternals(NamedTuple):
    """The functions of an agent that only the loops and the frame store of this package call.

    Attributes:
        draw: `(replay, key, beta) -> (windows [U, B, ...], keys [U])`; requires `replay.can_sample`; the key is
            consumed. With `D` devices, each has its own keys: `[U, D]`.
        augment: `(keys, windows) -> batches`: shifts and mirrors windows from `draw`; the keys are consumed.
        compile: `(state) -> None`: compiles `act`, and `learn` if replay is on the device; works in any thread.
        metric_names: Names of the metrics of `learn`.
    """

    draw: Callable[..., tuple[Sample, Key[Array, "U ..."]]]
    augment: Callable[[Key[Array, "U ..."], Batch], Batch]
    compile: Callable[[AgentState], None]
    metric_names: tuple[str, ...]


class Agent(NamedTuple):
    """Pure functions over an `AgentState`, made by `make_agent`; each can be jitted, scanned and vmapped.

    A training loop calls the first four, and `learn` from frame `learning_start` on. The other functions can be called
    alone; replacing one of them changes neither `act` nor `learn`.

    Attributes:
        init: `(key) -> state`; the key is consumed.
        act: `(actor, obs [N, ...], mask=None) -> (actor, actions [N])`, epsilon-greedy or with a noisy network, among
            the actions that `mask` [N, A] allows.
        observe: `(state, rows [T, N, ...]) -> state`: adds rows to the ring; donates the ring.
        learn: `(state) -> (state, metrics [U])`: `sample`, then `update`, then the rows of the samples get their new
            priorities and the actor the new parameters; donates the learner and the priorities. If the ring cannot be
            sampled yet, nothing changes and metrics are NaN.
        q_values: `(params, obs [N, ...]) -> [N, A]`, without randomness.
        epsilon: `(frame) -> probability of a random action`.
        beta: `(frame) -> exponent of importance weights`.
        sample: `(replay, key, beta=1.0) -> Sample [U, B, ...]`, augmented; the key is consumed.
        update: `(learner, samples [U, B, ...], keys=None) -> (learner, metrics [U], priority [U, B])`; donates the
            learner, and consumes the keys `[U]` of noisy layers and quantile fractions; None: mean weights, fixed
            fractions.
        replay: The functions of the ring and its size in bytes.
        learning_start: Frames to collect before the first `learn`: enough for the warm-up and for one window.
        internals: What only this package calls.
    """

    init: Callable[[Key[Array, ""]], AgentState]
    act: Callable[..., tuple[ActorState, Int[Array, " N"]]]
    observe: Callable[[AgentState, Rows], AgentState]
    learn: Callable[[AgentState], tuple[AgentState, Metrics]]
    q_values: Callable[[Params, Shaped[Any, "N ..."]], Float[Array, "N A"]]
    epsilon: Callable[[Int[Array, ""]], Float[Array, ""]]
    beta: Callable[[Int[Array, ""]], Float[Array, ""]]
    sample: Callable[..., Sample]
    update: Callable[..., tuple[LearnerState, Metrics, Float[Array, "U B"]]]
    replay: Replay
    learning_start: int
    internals: AgentInternals
