"""Measure the speed of DQN on an Atari game: the preset `atari`, or a peer with its protocol in eager PyTorch.

    python3 -m pip install -e '.[bench]'      # for the peer
    python3 experiments/atari_demo.py --of jaxdqn --steps 1600
    python3 experiments/atari_demo.py --of peer --steps 1600

`throughput.py` compares the two. Arguments: `--of`, `--game` (Pong), `--steps`, `--capacity` (of replay, 50,000: a
million stacks of the peer take 28 GB). Both have Nature's network and an update of 32 transitions every four steps,
without warm-up, evaluations and logs; ours steps eight games on ale-py's threads, the peer (`shared/atari_peer.py`)
one. It prints steps per second and peak memory as one line of JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence

from shared.command_line import positive
from shared.process import peak_bytes


def steps_per_second(game: str, steps: int, capacity: int) -> float:
    """Train the preset `atari` for some steps and return steps per second after the first batches."""
    from jaxdqn_demo import timed_loop

    from jaxdqn.presets import PRESETS

    fields = {"env": f"ALE/{game}-v5", "total_frames": steps, "capacity": capacity, "warmup_frames": 0}
    return timed_loop(dataclasses.replace(PRESETS["atari"], **fields))


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line, run, print one line of JSON."""
    parser = argparse.ArgumentParser(description="DQN on an Atari game, timed.")
    parser.add_argument("--of", choices=["jaxdqn", "peer"], default="jaxdqn", help="whose code to run")
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--steps", type=positive, default=1600)
    parser.add_argument("--capacity", type=positive, default=50_000)
    options = parser.parse_args(args)
    if options.steps < 320:
        parser.error(f"--steps {options.steps} must be at least 320: the first 160 are not timed")
    words = (options.game, options.steps, options.capacity)
    if options.of == "peer":
        from shared.atari_peer import run

        speed = run(*words)
    else:
        try:
            speed = steps_per_second(*words)
        except ValueError as error:
            parser.error(str(error))
    print(json.dumps({"steps_per_second": speed, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
