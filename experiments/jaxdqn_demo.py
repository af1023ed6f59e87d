"""Measure the speed of TorchRL's demo configuration on jaxdqn, without evaluations and logs.

    python3 experiments/jaxdqn_demo.py --frames 1600 --collector async
    python3 experiments/jaxdqn_demo.py --frames 1600 --loop device

`throughput.py` compares it with `torchrl_demo.py`. Arguments: `--frames`, `--preset` (torchrl-demo), `--loop` and
`--collector`. It prints frames per second and peak memory as one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shared.process import peak_bytes

if TYPE_CHECKING:
    from jaxdqn.config import Config
    from jaxdqn.loops.progress import Progress

WARM_UP_BATCHES = 5


def run(frames: int, preset: str, loop: str, collector: str) -> dict[str, float]:
    """Train for some frames; return frames per second after the first batches, and peak memory."""
    from jaxdqn.presets import PRESETS

    fields = {"total_frames": frames, "loop": loop, "collector": collector, "warmup_frames": 0}
    speed = timed_loop(dataclasses.replace(PRESETS[preset], **fields))
    return {"frames_per_second": speed, "peak_bytes": peak_bytes()}


def timed_loop(config: Config) -> float:
    """Train, and return frames per second after the first batches.

    Raises:
        ValueError: If there are no more batches than those.
    """
    from jaxdqn.distributed.devices import enable_compilation_cache

    enable_compilation_cache()
    warmed, warm_frames = 0.0, 0
    with contextlib.ExitStack() as cleanup:
        for batch, progress in enumerate(make_loop(config, cleanup)):
            # The device loop yields all batches of a chunk at once, and a state only with the last one.
            if not warmed and batch + 1 >= WARM_UP_BATCHES and progress.state is not None:
                warmed, warm_frames = time.monotonic(), progress.frames
        seconds = time.monotonic() - warmed
    if not warmed or progress.frames == warm_frames:
        raise ValueError(
            f"--frames {config.total_frames} are too few: the first {WARM_UP_BATCHES} batches are not timed"
        )
    return (progress.frames - warm_frames) / seconds


def make_loop(config: Config, cleanup: contextlib.ExitStack) -> Iterator[Progress]:
    """Return the config's training loop."""
    import jax

    import jaxdqn
    from jaxdqn.envs.gymnasium.building import make_env_fn_of
    from jaxdqn.training.setup import inspect_env, make_setup

    if config.loop == "device":
        device_run = jaxdqn.make_device_run(config)
        return jaxdqn.device_loop(device_run, device_run.init(jax.random.key(0)), config)
    build = make_env_fn_of(config)
    envs = jaxdqn.make_vector_env(build, config.num_envs, workers=config.collector == "async")
    cleanup.callback(envs.close)
    with contextlib.closing(build()) as env:
        parts = make_setup(config, env, inspect_env(env, config.frame_stack))
    collector = jaxdqn.Collector(
        envs,
        seed=0,
        frame_stack=parts.stack,
        reward_scale=config.reward_scale,
        clip_rewards=config.clip_rewards,
        terminal_on_life_loss=config.terminal_on_life_loss,
    )
    return jaxdqn.host_loop(parts.agent, parts.state, collector, config)


def main() -> None:
    """Parse the command line, run, print one line of JSON."""
    parser = argparse.ArgumentParser(description="TorchRL's demo configuration on jaxdqn.")
    parser.add_argument("--frames", type=int, default=1600)
    parser.add_argument("--preset", default="torchrl-demo")
    parser.add_argument("--loop", choices=["host", "device"], default="host")
    parser.add_argument("--collector", choices=["sync", "async"], default="sync", help="collector of the host loop")
    options = parser.parse_args()
    try:
        print(json.dumps(run(options.frames, options.preset, options.loop, options.collector)))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
