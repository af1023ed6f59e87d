"""Measure the speed of TorchRL's demo configuration on TorchRL: `throughput.py` compares `jaxdqn_demo.py` with it.

    python3 -m pip install -e '.[bench]'      # PyTorch, TorchRL, flashbax; PyTorch's CPU build is enough
    python3 experiments/torchrl_demo.py --frames 1600

The argument `--frames` is the length of the run. It collects, stores, samples and learns like the demo of TorchRL's
tutorial, without evaluations and logs: two workers, 32 frames a batch, 8 updates of 32 transitions a batch, 5-step
returns, replay in a memory map with prefetching. TorchRL leaves its learner the threads that its workers do not use,
one on two cores (`ParallelEnv(num_threads=...)`). TorchRL's `Resize` needs torchvision, which may have no CPU build;
`Shrink` is the same filter. It prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
import warnings
from typing import Any

import torch
from shared.process import peak_bytes
from tensordict import TensorDictBase
from tensordict.nn import TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyMemmapStorage, MultiStep, TensorDictReplayBuffer
from torchrl.data.tensor_specs import TensorSpec, Unbounded
from torchrl.envs import EnvBase, EnvCreator, ExplorationType, ParallelEnv, RewardScaling, StepCounter
from torchrl.envs.libs.gym import GymEnv
from torchrl.envs.transforms import (
    CatFrames,
    Compose,
    GrayScale,
    ObservationNorm,
    ObservationTransform,
    ToTensorImage,
    TransformedEnv,
)
from torchrl.modules import DuelingCnnDQNet, EGreedyModule, QValueActor
from torchrl.objectives import DQNLoss, SoftUpdate

SIDE, FRAMES_PER_BATCH, BATCH_SIZE, UPDATES, WORKERS = 64, 32, 32, 8, 2
CAPACITY, GAMMA, N_STEPS = 5_000, 0.99, 5
WARM_UP_BATCHES = 5


class Shrink(ObservationTransform):
    """Bilinear resizing with antialiasing, as torchvision's `Resize` computes it on tensors."""

    def _apply_transform(self, pixels: torch.Tensor) -> torch.Tensor:
        batch = pixels.reshape(-1, *pixels.shape[-3:])
        small = nn.functional.interpolate(batch, (SIDE, SIDE), mode="bilinear", antialias=True)
        return small.reshape(*pixels.shape[:-2], SIDE, SIDE)

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        return self._call(tensordict_reset)

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        """Return the spec of frames with the new size."""
        spec = observation_spec["pixels"]
        shape = torch.Size([*spec.shape[:-2], SIDE, SIDE])
        observation_spec["pixels"] = Unbounded(shape=shape, dtype=spec.dtype, device=spec.device)
        return observation_spec


def cartpole() -> EnvBase:
    """Return one environment whose observations are pygame's frames."""
    return GymEnv("CartPole-v1", from_pixels=True, pixels_only=True)


def make_env(base: EnvBase, stats: dict[str, Any]) -> TransformedEnv:
    """Return an environment with the tutorial's transforms."""
    return TransformedEnv(
        base,
        Compose(
            StepCounter(),
            ToTensorImage(),
            RewardScaling(loc=0.0, scale=0.1),
            GrayScale(),
            Shrink(in_keys=["pixels"], out_keys=["pixels"]),
            CatFrames(4, in_keys=["pixels"], dim=-3),
            ObservationNorm(in_keys=["pixels"], **stats),
        ),
    )


def run(frames: int) -> dict[str, float]:
    """Train for some frames; return frames per second after the first batches, first update time and peak memory."""
    single = make_env(cartpole(), {"standard_normal": True})
    single.transform[-1].init_stats(num_iter=1000, cat_dim=0, reduce_dim=[-1, -2, -4], keep_dims=(-1, -2))
    stats = {**single.transform[-1].state_dict(), "standard_normal": True}
    convolutions = {
        "num_cells": [32, 64, 64],
        "kernel_sizes": [6, 4, 3],
        "strides": [2, 2, 1],
        "activation_class": nn.ELU,
    }
    heads = {"depth": 2, "num_cells": [64, 64], "activation_class": nn.ELU}
    network = DuelingCnnDQNet(single.action_spec.shape[-1], 1, convolutions, heads)
    actor = QValueActor(network, in_keys=["pixels"], spec=single.action_spec)
    actor(single.fake_tensordict())
    network.value[-1].bias.data.fill_(2.0)
    explore = EGreedyModule(single.action_spec, annealing_num_steps=CAPACITY, eps_init=0.1, eps_end=0.005)
    loss_module = DQNLoss(actor, delay_value=True)
    loss_module.make_value_estimator(gamma=GAMMA)
    target_updater = SoftUpdate(loss_module, eps=0.995)
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=2e-3, weight_decay=1e-5)
    collector = Collector(
        make_env(ParallelEnv(WORKERS, EnvCreator(cartpole), mp_start_method="fork"), stats),
        policy=TensorDictSequential(actor, explore),
        frames_per_batch=FRAMES_PER_BATCH,
        total_frames=frames,
        exploration_type=ExplorationType.RANDOM,
        split_trajs=False,
        postproc=MultiStep(gamma=GAMMA, n_steps=N_STEPS),
    )
    with tempfile.TemporaryDirectory() as scratch:
        storage = LazyMemmapStorage(CAPACITY, scratch_dir=scratch)
        replay = TensorDictReplayBuffer(batch_size=BATCH_SIZE, storage=storage, prefetch=UPDATES)
        warmed, first_update = time.monotonic(), 0.0
        for batch, rows in enumerate(collector):
            replay.extend(rows.reshape(-1))
            for _ in range(UPDATES):
                loss = loss_module(replay.sample())["loss"]
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                target_updater.step()
                first_update = first_update or time.time()
            collector.update_policy_weights_()
            explore.step(FRAMES_PER_BATCH)
            if batch + 1 == WARM_UP_BATCHES:
                warmed = time.monotonic()
        seconds = time.monotonic() - warmed
        collector.shutdown()
    measured = (batch + 1 - WARM_UP_BATCHES) * FRAMES_PER_BATCH
    return {"frames_per_second": measured / seconds, "first_update_at": first_update, "peak_bytes": peak_bytes()}


def main() -> None:
    """Parse the command line, run, print one line of JSON."""
    parser = argparse.ArgumentParser(description="TorchRL's demo configuration on TorchRL.")
    parser.add_argument("--frames", type=int, default=1600)
    options = parser.parse_args()
    smallest = (WARM_UP_BATCHES + 1) * FRAMES_PER_BATCH
    if options.frames < smallest:
        parser.error(f"--frames {options.frames} must be at least {smallest}: the first batches are not timed")
    warnings.filterwarnings("ignore")
    multiprocessing.set_start_method("fork", force=True)
    print(json.dumps(run(options.frames)))


if __name__ == "__main__":
    main()
