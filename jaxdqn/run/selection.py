"""Which agents a run keeps."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from jaxdqn.agent import Agent
from jaxdqn.config import Config
from jaxdqn.envs.seeds import Purpose, spawn_seeds
from jaxdqn.envs.vector import Episode
from jaxdqn.run.checkpoint import AgentSpec, Checkpoints
from jaxdqn.run.evaluation import Evaluation, Evaluator, summarise
from jaxdqn.run.policy import greedy_policy
from jaxdqn.run.progress import Progress


class Selection:
    """Evaluates as a run goes on, and keeps the last agent and the best.

    The best agent has the best mean over `evaluation_episodes` episodes on seeds of its own; of equal ones, the
    latest, which has learned from more. A quarter of them are played first; only an agent that reaches the best mean
    with those plays the rest. An agent far from the best is then judged at a quarter of the price, and one that equals
    it at the whole.
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
        self._best_mean = float(checkpoints.index().get("best_mean", -float("inf")))

    def index(self) -> dict[str, Any]:
        """Which agents are the last one and the best one."""
        return self._checkpoints.index()

    def evaluate(self, progress: Progress, others: Set[int] = frozenset()) -> Evaluation:
        """Evaluate an agent, and keep it as the last one and perhaps as the best.

        Args:
            progress: Where the run stands.
            others: Frames of agents that are to be kept besides.
        """
        assert progress.state is not None  # loops give it where the config evaluates
        learner = progress.state.learner
        params = learner.target_params if self._greedy_params == "target" else learner.params
        policy = greedy_policy(self._agent.q_values, params)
        episodes: list[Episode] = self._evaluator.play(policy, self._seeds[: self._screening])
        if summarise(episodes).mean >= self._best_mean:
            episodes += self._evaluator.play(policy, self._seeds[self._screening :])
        evaluation = summarise(episodes)
        is_best = evaluation.episodes == len(self._seeds) and evaluation.mean >= self._best_mean
        if is_best:
            self._best_mean = evaluation.mean
        best_mean = evaluation.mean if is_best else None
        self._checkpoints.save(params, self._spec, frames=progress.frames, best_mean=best_mean, others=others)
        return evaluation
