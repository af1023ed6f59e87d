"""Make the agents that the package contains, from runs that the commands below trained.

    python3 experiments/pretrained_agents.py cartpole RUN
    python3 experiments/pretrained_agents.py ball RUN

Arguments: the agent's name, the folder of a run of its command, `--episodes` (100, for its figures), `--output`
(jaxdqn/pretrained). The best agent of the run is written and read again; the figures are those of the agent that was
read, on seeds that training and selection did not use. A run of another command, or one that has not ended, is refused.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_preset import is_finished
from shared.command_line import positive

import jaxdqn
from jaxdqn.checkpoints.agent_files import Checkpoints
from jaxdqn.cli.train_flags import parse_config
from jaxdqn.config import Config
from jaxdqn.evaluation.pretrained import read_agent, write_agent
from jaxdqn.presets import PRESETS
from jaxdqn.pretrained import FOLDER
from jaxdqn.storage.atomic import read_json
from jaxdqn.versions import PACKAGES

COMMANDS = {
    "cartpole": "jaxdqn train cartpole --seed 100",
    "ball": "jaxdqn train --env jaxdqn/Ball-v0 --total-frames 40000 --seed 10",
}


def config_of_command(command: str) -> Config:
    """Return the config of a command `jaxdqn train [PRESET] [--flags]`."""
    _, _, *words = shlex.split(command)
    preset = PRESETS[words.pop(0)] if words and not words[0].startswith("-") else None
    return parse_config(words, preset)


def check_run(run: Path, command: str) -> None:
    """Raise `ValueError` if a run is not of a command, or has not ended."""
    if not is_finished(run, config_of_command(command)):
        raise ValueError(f"{run} is not a whole run of {command!r}: train that one to its end")


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line, write the agent, print its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=COMMANDS)
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=positive, default=100)
    parser.add_argument("--output", type=Path, default=FOLDER)
    options = parser.parse_args(args)
    command = COMMANDS[options.name]
    try:
        check_run(options.run, command)
        agent = jaxdqn.load(options.run)
        found = read_json(options.run / "versions.json")
        facts: dict[str, Any] = {
            "command": command,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "frames": Checkpoints(options.run / "checkpoints").index()["best"],
            "versions": {name: found[name] for name in ("python", *PACKAGES) if name in found},
        }
        with tempfile.TemporaryDirectory() as folder:  # of the agent as it is read, before the old one is replaced
            write_agent(Path(folder), options.name, agent, facts)
            played = read_agent(Path(folder), options.name).evaluate(options.episodes, seed=0)
    except ValueError as error:
        parser.error(str(error))
    figures = {name: round(getattr(played, name), 1) for name in ("mean", "standard_error", "median", "min", "max")}
    write_agent(options.output, options.name, agent, {**facts, "episodes": played.episodes, **figures})
    size = (options.output / f"{options.name}.npz").stat().st_size
    print(f"{options.name}: {figures} over {played.episodes} episodes, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
