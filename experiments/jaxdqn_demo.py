"""The seed's demo configuration on jaxdqn, without evaluations and logs: what `torchrl_demo.py` is compared with.

python3 experiments/jaxdqn_demo.py --frames 1600 --collector async
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

from process import peak_bytes

WARM_UP_BATCHES = 5


def run(frames: int, preset: str, collector_kind: str) -> dict[str, float]:
    """Train for some frames; the figures of the loop after its first batches."""
    import jaxdqn
    from jaxdqn.presets import PRESETS
    from jaxdqn.run.assembly import assemble
    from jaxdqn.run.resources import keep_programs

    keep_programs()
    config = dataclasses.replace(PRESETS[preset], total_frames=frames, collector=collector_kind, warmup_frames=0)
    build = jaxdqn.make_env_fn(config.env, pixels=config.pixels, frame_size=config.frame_size)
    envs = jaxdqn.make_vector_env(build, config.num_envs, workers=collector_kind == "async")
    parts = assemble(config, build)
    collector = jaxdqn.Collector(envs, seed=0, frame_stack=parts.stack, reward_scale=config.reward_scale)
    warmed = 0.0
    warm_frames = 0
    for batch, progress in enumerate(jaxdqn.host_loop(parts.agent, parts.state, collector, config)):
        if batch + 1 == WARM_UP_BATCHES:
            warmed, warm_frames = time.monotonic(), progress.frames
    seconds = time.monotonic() - warmed
    envs.close()
    return {
        "frames_per_second": (progress.frames - warm_frames) / seconds,
        "peak_bytes": peak_bytes(),
    }


def main() -> None:
    """Parse the command line, run, print one line of JSON."""
    parser = argparse.ArgumentParser(description="The seed's demo configuration on jaxdqn.")
    parser.add_argument("--frames", type=int, default=1600)
    parser.add_argument("--preset", default="seed-demo")
    parser.add_argument("--collector", choices=["sync", "async"], default="async")
    options = parser.parse_args()
    print(json.dumps(run(options.frames, options.preset, options.collector)))


if __name__ == "__main__":
    main()
