"""The progress output of a run."""

import io
from pathlib import Path

from rich.console import Console

from jaxdqn.cli.console import Display, count_of, mean_with_error
from jaxdqn.config import Config
from jaxdqn.envs.vector.episodes import Episode
from jaxdqn.evaluation.evaluator import summarise
from jaxdqn.loops.progress import Progress
from jaxdqn.training.trainer import RunProgress

CONFIG = Config(total_frames=320, warmup_frames=64)


def shown(*, terminal):
    """Return what a short run prints to a terminal or to a file."""
    page = io.StringIO()
    console = Console(file=page, force_terminal=terminal, width=110, highlight=False, soft_wrap=not terminal)
    with Display(CONFIG, console) as display:
        for frames in (32, 160, 320):
            metrics = {} if frames < 64 else {"loss": 0.125}
            evaluation = summarise([Episode(7.0, 7), Episode(9.0, 9)]) if frames == 320 else None
            episodes = [Episode(41.0, 41)] if frames == 160 else []
            progress = Progress(frames, 0, 0.25, episodes, metrics, None)
            display.show(RunProgress(progress, evaluation, Path("runs/x")))
    return page.getvalue()


def test_a_file_gets_plain_lines():
    lines = shown(terminal=False).splitlines()
    assert lines[0].startswith("frames 32/320")
    assert "warming up" in lines[0]
    assert lines[-1] == "frame 320: greedy return 8.0 ± 1.0 over 2 episodes (min 7, max 9)"
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_bar_with_all_values():
    page = shown(terminal=True)
    for word in ("320/320", "/s", "epsilon 0.250", "loss 0.1250", "return 41", "greedy return 8.0"):
        assert word in page


def test_a_single_episode_has_no_standard_error():
    one, two = summarise([Episode(7.0, 7)]), summarise([Episode(7.0, 7), Episode(9.0, 9)])
    assert (mean_with_error(one), mean_with_error(two)) == ("7.0", "8.0 ± 1.0")
    assert (count_of(1, "greedy episode"), count_of(2, "greedy episode")) == ("1 greedy episode", "2 greedy episodes")
