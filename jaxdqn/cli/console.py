"""Progress output: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxdqn.config import Config

if TYPE_CHECKING:
    from jaxdqn.evaluation.evaluator import Evaluation
    from jaxdqn.training.trainer import RunProgress

SECONDS_BETWEEN_LINES = 10.0


class Display:
    """Shows frames, rate, time left, epsilon, loss and the last return; each evaluation is a separate line."""

    def __init__(self, config: Config, console: Console | None = None, *, quiet: bool = False) -> None:
        """Show a bar if the console can redraw it, otherwise a line every ten seconds.

        Args:
            config: The run's config.
            console: Where to print; None prints to standard output.
            quiet: Show only warnings and errors, because another process shows the progress.
        """
        self._quiet = quiet
        self._console = console or _standard_output()
        self._redraws = self._console.is_terminal and self._console.is_interactive
        self._batch = config.frames_per_batch
        self._total = config.num_batches * config.frames_per_batch
        self._started = self._line_due = time.monotonic()
        self._first: int | None = None
        self._last_return: float | None = None
        self._bar = Progress(
            TextColumn("frames"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[rate]:.0f}/s"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            disable=quiet or not self._redraws,
            expand=True,
        )
        self._task = self._bar.add_task("train", total=self._total, rate=0.0, facts="")

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Print a separate line."""
        self._console.print(line, markup=False, emoji=False)

    def show(self, step: RunProgress) -> None:
        """Show the progress of the run."""
        if self._quiet:
            return
        progress = step.progress
        now = time.monotonic()
        if self._first is None:  # the rate of a resumed run counts only the frames of this process
            self._first = max(progress.frames - self._batch, 0)
        rate = (progress.frames - self._first) / max(now - self._started, 1e-9)
        if progress.episodes:
            self._last_return = progress.episodes[-1].raw_return
        loss = progress.metrics.get("loss")
        facts = f"epsilon {progress.epsilon:.3f}"
        facts += "  warming up" if loss is None else f"  loss {loss:.4f}"
        facts += "" if self._last_return is None else f"  return {self._last_return:g}"
        self._bar.update(self._task, completed=progress.frames, rate=rate, facts=facts)
        if step.evaluation is not None:
            result = step.evaluation
            cut = f", {result.cut} cut after {max(result.lengths):,} steps" if result.cut else ""
            self._console.print(
                f"frame {progress.frames:,}: greedy return {mean_with_error(result)} over "
                f"{count_of(result.episodes, 'episode')} (min {result.min:g}, max {result.max:g}{cut})"
            )
        elif not self._redraws and now >= self._line_due:
            self._line_due = now + SECONDS_BETWEEN_LINES
            left = (self._total - progress.frames) / max(rate, 1e-9)
            self._console.print(f"frames {progress.frames:,}/{self._total:,}  {rate:.0f}/s  {left:.0f} s left  {facts}")


def mean_with_error(result: Evaluation) -> str:
    """Return an evaluation's mean and, if it has several episodes, the standard error of it."""
    error = f" ± {result.standard_error:.1f}" if result.episodes > 1 else ""
    return f"{result.mean:.1f}{error}"


def count_of(number: int, noun: str) -> str:
    """Return a number of things with the noun for one of them, in the plural if there are several."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _standard_output() -> Console:
    """Return a console on standard output that redraws only a terminal, even if `FORCE_COLOR` is set.

    `FORCE_COLOR` asks for colours only: a bar would write each of its states to a file or a pipe. `NO_COLOR` and
    `CLICOLOR=0` remove the colours and keep the bar; `TERM=dumb` and `TTY_INTERACTIVE=0` remove the bar.
    """
    return Console(
        highlight=False,
        soft_wrap=True,
        force_terminal=sys.stdout.isatty(),
        no_color=True if os.environ.get("CLICOLOR") == "0" else None,  # None: rich reads NO_COLOR
    )
