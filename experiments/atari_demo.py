"""Measure the speed of DQN on Pong: the preset `atari`, or a peer with its protocol in eager PyTorch.

    python3 -m pip install -e '.[bench]'      # for the peer
    python3 experiments/atari_demo.py --of jaxdqn --steps 1600
    python3 experiments/atari_demo.py --of peer --steps 1600

`throughput.py` compares the two. Arguments: `--of`, `--steps`, `--capacity` (of replay, 50,000: a million stacks of the
peer take 28 GB). Both have Nature's network and an update of 32 transitions every four steps, without warm-up,
evaluations and logs; ours steps eight games on ale-py's threads, the peer (`shared/atari_peer.py`) one. It prints steps
per second as one line of JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence

from shared.command_line import positive

SHORTEST = 320
"""The first half is not timed: the first updates compile ours, and allocate the memory of the peer."""


def speed_of_ours(steps: int, capacity: int) -> float:
    """Train the preset `atari` for some steps and return steps per second after the first batches."""
    from jaxdqn_demo import timed_loop

    from jaxdqn.presets import PRESETS

    fields = {"total_frames": steps, "capacity": capacity, "warmup_frames": 0}
    return timed_loop(dataclasses.replace(PRESETS["atari"], **fields))


def speed_of_peer(steps: int, capacity: int) -> float:
    """Return steps per second of the peer."""
    from shared.atari_peer import run

    return run(steps, capacity)


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line, run, print one line of JSON."""
    speeds = {"jaxdqn": speed_of_ours, "peer": speed_of_peer}
    parser = argparse.ArgumentParser(description="DQN on Pong, timed.")
    parser.add_argument("--of", choices=speeds, default="jaxdqn", help="whose code to run")
    parser.add_argument("--steps", type=positive, default=1600)
    parser.add_argument("--capacity", type=positive, default=50_000)
    options = parser.parse_args(args)
    if options.steps < SHORTEST:
        parser.error(f"--steps {options.steps} must be at least {SHORTEST}: the first 160 are not timed")
    try:
        speed = speeds[options.of](options.steps, options.capacity)
    except (ValueError, ModuleNotFoundError) as error:
        parser.error(str(error))
    print(json.dumps({"steps_per_second": speed}))


if __name__ == "__main__":
    main()
