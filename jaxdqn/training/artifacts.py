"""The files that the first process writes for a run: logs, evaluations, agents and pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxdqn.checkpoints.agent_files import Checkpoints
from jaxdqn.checkpoints.run_manifest import LogPosition
from jaxdqn.checkpoints.run_state import States
from jaxdqn.evaluation.evaluator import Evaluation, Evaluator
from jaxdqn.evaluation.loading import load
from jaxdqn.evaluation.selection import Selection
from jaxdqn.loops.progress import Progress
from jaxdqn.objectives.categorical import MASS_OUTSIDE
from jaxdqn.reporting.gif import record_gif
from jaxdqn.reporting.logger import Logger
from jaxdqn.reporting.plots import draw_curve
from jaxdqn.training.context import RunContext
from jaxdqn.training.setup import RunSetup

OUTSIDE_LIMIT = 0.1
"""Share of the targets' probability outside the support from which a run warns; an average over about 100 batches."""


class RunArtifacts:
    """Writes the logs, evaluations, agents and pictures of a run."""

    def __init__(
        self, folder: Path, context: RunContext, setup: RunSetup, evaluator: Evaluator, states: States
    ) -> None:
        """Open the logs. In a resume, also drop states and rows that come after the state to resume from.

        Args:
            folder: The run's folder.
            context: The run.
            setup: The agent.
            evaluator: Plays the episodes of evaluations.
            states: The states of the run; agents that they name are not deleted.
        """
        self._folder, self._config, self._overrides, self._states = folder, context.config, context.overrides, states
        checkpoints, frames, log = Checkpoints(folder / "checkpoints"), 0, None
        if context.saved is not None:
            saved = context.saved.manifest
            frames, log = saved.frames, saved.record.log
            states.delete_after(frames)
            for note in checkpoints.restore_index(saved.record.index, states.agents()):
                context.control.say(note)
        own = context.overrides.definitions()
        self._logger = Logger(
            folder,
            context.config,
            context.started,
            frames=frames,
            position=log,
            own=own,
            metric_names=setup.agent.internals.metric_names,
        )
        self._outside, self._say = 0.0, context.control.say_once
        self._selection = Selection(context.config, setup.agent, evaluator, checkpoints, setup.spec)

    def log(self, progress: Progress) -> None:
        """Write a row of metrics, if one is due; warn once if c51's support does not suit the returns."""
        self._logger.log(progress, force=progress.frames >= self._config.run_frames)
        if MASS_OUTSIDE not in progress.metrics or self._outside > OUTSIDE_LIMIT:
            return
        self._outside += 0.01 * (progress.metrics[MASS_OUTSIDE] - self._outside)
        if self._outside > OUTSIDE_LIMIT:
            support = "the support of your objective"
            if self._overrides.objective is None:
                support = "the support, from v_min {:g} to v_max {:g}".format(*self._config.support)
            self._say(
                f"{progress.metrics[MASS_OUTSIDE]:.0%} of the targets' probability is outside {support}: set it to the "
                "range of returns, in units of scaled rewards"
            )

    def evaluate(self, progress: Progress) -> Evaluation:
        """Evaluate an agent, save it, and log the result."""
        evaluation = self._selection.evaluate(progress, protected_frames=self._states.agents())
        self._logger.log_evaluation(progress.frames, evaluation)
        return evaluation

    def save_last_agent(self, progress: Progress) -> None:
        """Save an agent as the last agent, without an evaluation."""
        self._selection.keep_last(progress, protected_frames=self._states.agents())

    def index(self) -> dict[str, Any]:
        """Return the frames of the last and the best agent."""
        return self._selection.index()

    def log_position(self) -> LogPosition:
        """Return where the logs stand, for the process that resumes."""
        return self._logger.position()

    def draw_agent(self) -> None:
        """Draw an episode of the best agent as `agent.gif`."""
        output, overrides = self._folder / "agent.gif", self._overrides
        own: dict[str, Any] = {"env_fn": overrides.evaluation_env_fn(self._config), "network": overrides.network}
        best = lambda: load(self._folder, env=self._config.evaluation_env, **own)  # noqa: E731
        _try_draw("agent.gif", lambda: record_gif(best(), output, seed=self._config.seed))

    def close(self) -> None:
        """Close the logs."""
        self._logger.close()

    def draw_curve(self) -> None:
        """Draw the logs as `curve.png`; call it after `close`."""
        title = self._config.env if self._overrides.env_fn is None else None
        _try_draw("curve.png", draw_curve, [self._folder], self._folder / "curve.png", label=title)


def _try_draw(picture: str, draw: Callable[..., object], *args: Any, **options: Any) -> None:
    """Draw a picture; if that fails, warn and do not stop the run."""
    try:
        draw(*args, **options)
    except Exception as error:
        warnings.warn(f"no {picture}: {error}", RuntimeWarning, stacklevel=2)
