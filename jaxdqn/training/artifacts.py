"""What one process does for all of a run: its folder's logs, evaluations, agents and pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxdqn.checkpoints.agent import Checkpoints
from jaxdqn.checkpoints.run_state import States
from jaxdqn.evaluation.evaluator import Evaluation, Evaluator
from jaxdqn.evaluation.selection import Selection
from jaxdqn.evaluation.trained_agent import load
from jaxdqn.loops.progress import Progress
from jaxdqn.reporting.gif import record_gif
from jaxdqn.reporting.logger import Logger
from jaxdqn.reporting.plots import draw_curve
from jaxdqn.training.context import RunContext
from jaxdqn.training.setup import RunSetup


class RunArtifacts:
    """Keeps a run's folder."""

    def __init__(
        self, folder: Path, context: RunContext, setup: RunSetup, evaluator: Evaluator, states: States
    ) -> None:
        """Bring the folder to where the run stands, and open its logs.

        Args:
            folder: The run's.
            context: The run.
            setup: The agent.
            evaluator: Plays episodes for it.
            states: The run's, whose agents are kept, too.
        """
        self._folder, self._config, self._custom, self._states = folder, context.config, context.overrides, states
        checkpoints, frames, log = Checkpoints(folder / "checkpoints"), 0, None
        if context.saved is not None:
            frames, log = context.saved.facts["frames"], context.saved.facts["log"]
            states.drop_after(frames)
            for note in checkpoints.restore_index(context.saved.facts["index"], states.agents()):
                context.say(note)
        own = context.overrides.named()
        self._recorder = Logger(folder, context.config, context.started, frames=frames, facts=log, own=own)
        self._selection = Selection(context.config, setup.agent, evaluator, checkpoints, setup.spec)

    def log(self, progress: Progress) -> None:
        """A row of metrics, where one is due."""
        self._recorder.log(progress, force=progress.frames >= self._config.run_frames)

    def evaluate(self, progress: Progress) -> Evaluation:
        """Evaluate an agent and keep it, and log what was found."""
        evaluation = self._selection.evaluate(progress, protected_frames=self._states.agents())
        self._recorder.log_evaluation(progress.frames, evaluation)
        return evaluation

    def keep_last(self, progress: Progress) -> None:
        """Keep an agent as the last one, which is not evaluated."""
        self._selection.keep_last(progress, protected_frames=self._states.agents())

    def facts(self) -> dict[str, Any]:
        """Where logs and agents stand, for the process that goes on, as JSON takes it."""
        return {"log": self._recorder.facts(), "index": self._selection.index()}

    def draw_agent(self) -> None:
        """Draw the best agent at play."""
        output, overrides = self._folder / "agent.gif", self._custom
        own: dict[str, Any] = {"env_fn": overrides.evaluation_env_fn(self._config), "network": overrides.network}
        best = lambda: load(self._folder, env=self._config.evaluation_env, **own)  # noqa: E731
        _try("agent.gif", lambda: record_gif(best(), output, seed=self._config.seed))

    def close(self) -> None:
        """Close the logs."""
        self._recorder.close()

    def draw_curve(self) -> None:
        """Draw what is in the logs, once they are closed."""
        title = self._config.env if self._custom.env_fn is None else None
        _try("curve.png", draw_curve, [self._folder], self._folder / "curve.png", label=title)


def _try(picture: str, draw: Callable[..., object], *args: Any, **options: Any) -> None:
    """Draw; a picture that fails is a warning, never the end of a run."""
    try:
        draw(*args, **options)
    except Exception as error:
        warnings.warn(f"no {picture}: {error}", RuntimeWarning, stacklevel=2)
