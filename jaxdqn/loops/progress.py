"""The progress that both loops yield, and when a loop learns, evaluates and saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jaxdqn.agent.agent import Agent, AgentState
from jaxdqn.distributed.process_group import Exchange
from jaxdqn.envs.vector.episodes import Episode

if TYPE_CHECKING:
    from jaxdqn.loops.device_run import RunState


class Progress(NamedTuple):
    """The progress of a run after a collected batch and its updates.

    Attributes:
        frames: Rows collected so far.
        updates: Updates made so far.
        epsilon: Probability of a random action at this frame.
        episodes: Episodes that ended in this batch.
        metrics: Means over this batch's updates (`loss`, `gradient_norm`, `q_value`); empty during warm-up.
        state: The agent's state. The next iteration donates part of it, so copy what you keep. `device_loop` yields it
            only with the last batch of each chunk (a chunk ends at every evaluation), and None with the others.
        run_state: Only from `device_loop`, together with `state`: the agent's state and that of the environments.
    """

    frames: int
    updates: int
    epsilon: float
    episodes: list[Episode]
    metrics: dict[str, float]
    state: AgentState | None
    run_state: RunState | None = None


def gathered_episodes(exchange: Exchange) -> list[Episode]:
    """Return the episodes that all processes of a run have exchanged, in the order of the processes."""
    return [Episode(*episode) for local in exchange.gathered for episode in local]


def learning_start_after(state: AgentState, agent: Agent, num_envs: int) -> int:
    """Return the frame at which a loop starts to learn: the agent's, or later after a resume without replay.

    After such a resume the ring is first filled again for as many frames as at the start of the run, without updates.

    Args:
        state: The agent's state.
        agent: The agent.
        num_envs: Number of environments of all processes together.
    """
    slots = state.replay.rows.action.shape[0]
    rows = int(state.replay.size) * num_envs
    lost = 0 if rows == slots * num_envs else max(int(state.actor.frame) - rows, 0)
    return lost + agent.learning_start
