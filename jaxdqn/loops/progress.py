"""What loops yield, whether they step environments on the host or on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jaxdqn.agent import Agent, AgentState
from jaxdqn.config import Config
from jaxdqn.distributed.processes import Exchange
from jaxdqn.envs.vector.episodes import Episode

if TYPE_CHECKING:
    from jaxdqn.loops.device_run import RunState


class Progress(NamedTuple):
    """Where a run stands after a collected batch and its updates.

    Attributes:
        frames: Rows collected so far.
        updates: Updates done so far.
        epsilon: Probability of a random action at this frame.
        episodes: Episodes that ended in this batch.
        metrics: Means over this batch's updates (`loss`, `gradient_norm`, `q_value`); empty during warm-up.
        state: The agent's state; the next iteration donates part of it, so copy what you keep. `device_loop` gives it
            with the last batch of each chunk only, which is where the config evaluates; else it is None there.
        run_state: Of `device_loop`, together with `state`: that and the environments.
    """

    frames: int
    updates: int
    epsilon: float
    episodes: list[Episode]
    metrics: dict[str, float]
    state: AgentState | None
    run_state: RunState | None = None


def gathered_episodes(exchange: Exchange) -> list[Episode]:
    """Episodes of which the processes of a run have told, in their order."""
    return [Episode(*episode) for of_one in exchange.gathered for episode in of_one]


def learning_start_after(state: AgentState, agent: Agent, num_envs: int) -> int:
    """Frames from which on a loop learns: `agent.learning_start`, and later where the ring lacks rows of the run.

    After a resume without replay the ring is filled as it was at first, with no update for the frames in between.

    Args:
        state: The state.
        agent: Its agent.
        num_envs: Environments of all processes, whose frames are counted.
    """
    slots = state.replay.rows.action.shape[0]
    rows = int(state.replay.size) * num_envs
    lost = 0 if rows == slots * num_envs else max(int(state.actor.frame) - rows, 0)
    return lost + agent.learning_start


def evaluates_at(config: Config, frames: int) -> bool:
    """Whether the batch that ends at so many frames is followed by an evaluation."""
    return frames >= config.run_frames or passed(config.evaluate_every, frames, config.frames_per_batch)


def keeps_at(config: Config, frames: int) -> bool:
    """Whether the state is kept after the batch that ends at so many frames."""
    return frames >= config.run_frames or passed(config.checkpoint_every, frames, config.frames_per_batch)


def passed(every: int, frames: int, new_frames: int) -> bool:
    """Whether a multiple of `every` lies among the newest frames; never where `every` is 0."""
    return every > 0 and frames // every > (frames - new_frames) // every
