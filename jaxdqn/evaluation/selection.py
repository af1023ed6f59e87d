"""The selection of the agents that a run keeps, and which statistics of an evaluation are unbiased."""

from __future__ import annotations

import statistics
from collections.abc import Set
from typing import Any

from jaxdqn.agent.agent import Agent
from jaxdqn.checkpoints.agent_files import AgentSpec, Checkpoints
from jaxdqn.config import Config
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.envs.vector.episodes import Episode
from jaxdqn.evaluation.evaluator import Evaluation, Evaluator, summarise
from jaxdqn.evaluation.policies import greedy_policy
from jaxdqn.learner import Params
from jaxdqn.loops.progress import Progress


class Selection:
    """Evaluates agents during a run, and keeps the last agent and the best one.

    Every agent is evaluated on the same `evaluation_episodes` seeds. It first plays a quarter of them, the screening
    episodes. It plays the rest only if its screening mean is at least the best agent's on the same seeds. The best
    agent is the one with the highest mean among those that play all seeds; the latest of equal ones, because it has
    learned from more frames.

    The mean of the screening episodes is an unbiased estimate, because every agent plays all of them. The mean of all
    played episodes is biased: an agent plays more only if the first ones went well. The best agent's mean is the
    highest of many and so too high: evaluate it again from other seeds (`jaxdqn evaluate`).
    `tests/evaluation/test_selection.py` simulates all three.
    """

    def __init__(
        self, config: Config, agent: Agent, evaluator: Evaluator, checkpoints: Checkpoints, spec: AgentSpec
    ) -> None:
        """Continue from the index of `checkpoints`."""
        self._agent = agent
        self._evaluator = evaluator
        self._checkpoints = checkpoints
        self._spec = spec
        self._greedy_params = config.greedy_params
        self._seeds = spawn_seeds(config.seed, config.evaluation_episodes, Purpose.SELECTION)
        self._screening = -(-config.evaluation_episodes // 4)
        index = checkpoints.index()
        # An older index has only the mean: the next agent then plays all seeds and is compared with that mean.
        self._best_returns: list[float] | None = index.get("best_returns")
        self._best_mean = float(index.get("best_mean", -float("inf")))

    def index(self) -> dict[str, Any]:
        """Return the checkpoint index, which says which agents are the last one and the best one."""
        return self._checkpoints.index()

    def keep_last(self, progress: Progress, protected_frames: Set[int] = frozenset()) -> Params:
        """Save an agent as the last one, and return its parameters."""
        assert progress.state is not None  # loops always yield it at an evaluation
        params = progress.state.learner.greedy_params(self._greedy_params)
        self._checkpoints.save(params, self._spec, frames=progress.frames, protected_frames=protected_frames)
        return params

    def evaluate(self, progress: Progress, protected_frames: Set[int] = frozenset()) -> Evaluation:
        """Evaluate an agent; save it as the last one, and as the best one if it is.

        Args:
            progress: The progress of the run, with a `state`.
            protected_frames: Frames of other agents that must not be deleted.
        """
        # Save the agent first, so that it is not lost if the evaluation fails.
        params = self.keep_last(progress, protected_frames)
        policy = greedy_policy(self._agent.q_values, params)
        episodes: list[Episode] = self._evaluator.play(policy, self._seeds[: self._screening])
        screening = summarise(episodes)
        is_best = self._reaches_best(screening.returns)
        if is_best:
            episodes += self._evaluator.play(policy, self._seeds[self._screening :])
        error = screening.standard_error if screening.episodes > 1 else None  # unknown for one episode
        evaluation = summarise(episodes)._replace(screening_mean=screening.mean, screening_standard_error=error)
        is_best = is_best and self._reaches_best(evaluation.returns)
        if is_best:
            self._best_returns, self._best_mean = evaluation.returns, evaluation.mean
            returns = evaluation.returns
            self._checkpoints.save(
                params, self._spec, frames=progress.frames, best_returns=returns, protected_frames=protected_frames
            )
        return evaluation

    def _reaches_best(self, returns: list[float]) -> bool:
        """Return whether the mean of an agent's first returns is at least the best agent's on the same seeds."""
        if self._best_returns is None:
            return len(returns) < len(self._seeds) or statistics.fmean(returns) >= self._best_mean
        same = min(len(returns), len(self._best_returns))  # a resumed run may play more episodes, or fewer
        return statistics.fmean(returns[:same]) >= statistics.fmean(self._best_returns[:same])
