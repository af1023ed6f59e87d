"""Which agents a run keeps, and which figures of an evaluation are unbiased."""

from __future__ import annotations

import statistics
from collections.abc import Set
from typing import Any

from jaxdqn.agent import Agent
from jaxdqn.checkpoints.agent import AgentSpec, Checkpoints
from jaxdqn.config import Config
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.envs.vector.episodes import Episode
from jaxdqn.evaluation.evaluator import Evaluation, Evaluator, summarise
from jaxdqn.evaluation.trained_agent import greedy_policy
from jaxdqn.learner import Params
from jaxdqn.loops.progress import Progress


class Selection:
    """Evaluates as a run goes on, and keeps the last agent and the best.

    Every agent plays the same `evaluation_episodes` seeds, a quarter of them first, to screen: the rest only if it gets
    there at least what the best agent got from the same seeds. Of those that play all, the best agent has the highest
    mean; of equal ones, the latest, which has learned from more.

    The mean of the screening episodes is an unbiased figure of an agent: all play them, whatever they bring. The mean
    of all that was played is not: it is over more episodes exactly where the first ones went well. And the best agent's
    mean is the highest of many, so that it says too much: play it again, from other seeds (`jaxdqn evaluate`).
    `tests/evaluation/test_selection.py` simulates all three.
    """

    def __init__(
        self, config: Config, agent: Agent, evaluator: Evaluator, checkpoints: Checkpoints, spec: AgentSpec
    ) -> None:
        """Begin where the index of `checkpoints` stands."""
        self._agent = agent
        self._evaluator = evaluator
        self._checkpoints = checkpoints
        self._spec = spec
        self._greedy_params = config.greedy_params
        self._seeds = spawn_seeds(config.seed, config.evaluation_episodes, Purpose.SELECTION)
        self._screening = -(-config.evaluation_episodes // 4)
        index = checkpoints.index()
        # An index of before these were kept has the mean alone: the next agent plays all and is compared with that.
        self._best_returns: list[float] | None = index.get("best_returns")
        self._best_mean = float(index.get("best_mean", -float("inf")))

    def index(self) -> dict[str, Any]:
        """Which agents are the last one and the best one."""
        return self._checkpoints.index()

    def keep_last(self, progress: Progress, protected_frames: Set[int] = frozenset()) -> Params:
        """Keep an agent as the last one, as `evaluate` does first of all; gives its parameters."""
        assert progress.state is not None  # loops give it where the config evaluates
        learner = progress.state.learner
        params = learner.target_params if self._greedy_params == "target" else learner.params
        self._checkpoints.save(params, self._spec, frames=progress.frames, protected_frames=protected_frames)
        return params

    def evaluate(self, progress: Progress, protected_frames: Set[int] = frozenset()) -> Evaluation:
        """Evaluate an agent, and keep it as the last one and perhaps as the best.

        Args:
            progress: Where the run stands.
            protected_frames: Frames of agents that are to be kept besides.
        """
        # First of all: what was learned can be played, whatever becomes of the evaluation.
        params = self.keep_last(progress, protected_frames)
        policy = greedy_policy(self._agent.q_values, params)
        episodes: list[Episode] = self._evaluator.play(policy, self._seeds[: self._screening])
        screening = summarise(episodes)
        is_best = self._reaches_best(screening.returns)
        if is_best:
            episodes += self._evaluator.play(policy, self._seeds[self._screening :])
        error = screening.standard_error if screening.episodes > 1 else None  # of one episode nothing is known
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
        """Whether an agent's first returns are, in the mean, at least the best agent's from the same seeds."""
        if self._best_returns is None:
            return len(returns) < len(self._seeds) or statistics.fmean(returns) >= self._best_mean
        same = min(len(returns), len(self._best_returns))  # a resumed run may play more episodes, or fewer
        return statistics.fmean(returns[:same]) >= statistics.fmean(self._best_returns[:same])
