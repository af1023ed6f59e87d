"""The rows of `throughput.py` that are measured in one process: each function yields rows that compare with a peer."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxdqn
from jaxdqn.preprocessing import preprocess_frame
from jaxdqn.presets import PRESETS
from jaxdqn.types import Batch, Rows, Sample

NUM_ENVS = 8


class Row(NamedTuple):
    """One comparison; `peer` is None if the peer is not installed or does not exist."""

    name: str
    ours: float
    peer: float | None
    unit: str
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Our cost divided by the peer's."""
        return None if self.peer is None else self.ours / self.peer


def median_seconds(rounds: int, **calls: Callable[[], Any]) -> dict[str, float]:
    """Return the median time of each function; they are called alternately, and the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            jax.block_until_ready(call())
            if index:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def has(*packages: str) -> bool:
    """Return whether all of the packages are installed."""
    return all(importlib.util.find_spec(package) for package in packages)


def frames(*shape: int) -> np.ndarray:
    """Return an array of random bytes."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def torchrl_agent(batch_size: int, updates: int) -> jaxdqn.Agent:
    """Return an agent of the preset `torchrl` with other batch sizes."""
    fields = {
        **PRESETS["torchrl"].to_dict(),
        "batch_size": batch_size,
        "updates_per_batch": updates,
        "capacity": 10_000,
    }
    stats = jaxdqn.ObservationStats(np.full(4, 0.9, np.float32), np.full(4, 0.2, np.float32))
    config = jaxdqn.Config(**fields)
    return jaxdqn.make_agent(config, num_actions=2, obs_shape=(64, 64), obs_dtype=np.uint8, obs_stats=stats)


def update_rows(rounds: int) -> Iterator[Row]:
    """Compare updates of TorchRL's network, ours as in a run: several in one compiled call, from bytes."""
    for size, updates in ((32, 8), (256, 2)):
        agent = torchrl_agent(size, updates)
        learner = agent.init(jax.random.key(0)).learner
        batches = Batch(
            obs=jax.numpy.asarray(frames(updates, size, 64, 64, 4)),
            action=jax.numpy.zeros((updates, size), jax.numpy.int32),
            reward=jax.numpy.ones((updates, size)),
            discount=jax.numpy.full((updates, size), 0.95),
            next_obs=jax.numpy.asarray(frames(updates, size, 64, 64, 4)),
        )

        def ours(batches: Batch = batches, agent: jaxdqn.Agent = agent) -> Any:
            nonlocal learner
            learner, metrics, _ = agent.update(learner, Sample(batches))
            return metrics

        calls: dict[str, Callable[[], Any]] = {"ours": ours}
        if has("torch"):
            import torch

            from shared import torch_peer

            for layout, memory_format in (
                ("contiguous", torch.contiguous_format),
                ("channels_last", torch.channels_last),
            ):
                peer = torch_peer.Learner(memory_format)
                batch = list(peer.batch(size))
                calls[layout] = lambda peer=peer, batch=batch, updates=updates: [
                    peer.update(*batch).item() for _ in range(updates)
                ]
        found = median_seconds(rounds, **calls)
        for layout in ("contiguous", "channels_last"):
            peer_seconds = found[layout] / updates if layout in found else None
            name = f"update of TorchRL's network, batch {size}"
            note = needs("torch") or f"PyTorch, {layout.replace('_', ' ')}"
            yield Row(name, found["ours"] / updates, peer_seconds, "s", note)


def needs(*packages: str) -> str:
    """Return a note on what to install for a peer; empty if it is installed."""
    return "" if has(*packages) else "the peer needs pip install -e '.[bench]'"


def act_rows(rounds: int) -> Iterator[Row]:
    """Compare epsilon-greedy actions for eight stacks, from NumPy and back, with a forward pass in PyTorch."""
    agent = torchrl_agent(32, 8)
    actor = agent.init(jax.random.key(0)).actor
    obs = frames(NUM_ENVS, 64, 64, 4)
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: np.asarray(agent.act(actor, obs)[1])}
    if has("torch"):
        import torch

        from shared import torch_peer

        network = torch_peer.DuelingCNN()

        def peer() -> Any:
            with torch.no_grad():
                stacks = torch.from_numpy(obs).permute(0, 3, 1, 2).float() / 255
                return network(stacks).argmax(-1).numpy()

        calls["peer"] = peer
    found = median_seconds(rounds * 5, **calls)
    yield Row("actions for 8 stacks", found["ours"], found.get("peer"), "s", needs("torch") or "PyTorch")


def replay_rows(rounds: int) -> Iterator[Row]:
    """Compare adding a batch of rows and sampling 256 transitions; flashbax's flat buffer stores whole transitions."""
    capacity, added = 10_000, 4
    agent = torchrl_agent(256, 1)
    ring = agent.init(jax.random.key(0)).replay
    numbers = np.zeros((capacity // NUM_ENVS, NUM_ENVS))
    rows = Rows(
        obs=frames(capacity // NUM_ENVS, NUM_ENVS, 64, 64),
        action=numbers.astype(np.int32),
        reward=numbers.astype(np.float32),
        terminated=numbers.astype(bool),
        last=numbers.astype(bool),
        episode_step=np.broadcast_to(np.arange(len(numbers), dtype=np.int32)[:, None], numbers.shape).copy(),
    )
    ring = agent.replay.add(ring, rows)
    few = jax.tree.map(lambda x: jax.numpy.asarray(x[:added]), rows)
    key = jax.random.key(1)

    def add() -> Any:
        nonlocal ring
        ring = agent.replay.add(ring, few)
        return ring.cursor

    adds: dict[str, Callable[[], Any]] = {"ours": add}
    samples: dict[str, Callable[[], Any]] = {"ours": lambda: agent.replay.sample(ring, key)}
    if has("flashbax"):
        import flashbax

        stacks = jax.numpy.asarray(frames(added * NUM_ENVS, 64, 64, 4))
        zeros = jax.numpy.zeros(added * NUM_ENVS)
        item = Batch(stacks, zeros.astype(jax.numpy.int32), zeros, zeros, stacks)
        flat = flashbax.make_flat_buffer(capacity, 256, 256, add_batch_size=added * NUM_ENVS)
        put = jax.jit(flat.add, donate_argnums=0)
        take = jax.jit(lambda state, key: flat.sample(state, key).experience.first)
        buffer = flat.init(jax.tree.map(lambda x: x[0], item))
        for _ in range(capacity // (added * NUM_ENVS)):
            buffer = put(buffer, item)

        def peer_add() -> Any:
            nonlocal buffer
            buffer = put(buffer, item)
            return buffer.current_index

        adds["peer"], samples["peer"] = peer_add, lambda: take(buffer, key)
    found = median_seconds(rounds * 5, **adds)
    yield Row(
        "replay: adding 32 rows",
        found["ours"],
        found.get("peer"),
        "s",
        needs("flashbax") or "flashbax, given both stacks of a row",
    )
    found = median_seconds(rounds * 5, **samples)
    yield Row(
        "replay: sampling 256 windows",
        found["ours"],
        found.get("peer"),
        "s",
        needs("flashbax") or "flashbax, of whole transitions",
    )
    per_row = agent.replay.num_bytes / capacity
    yield Row("replay: a transition", per_row, 2 * 4 * 64 * 64 * 4, "bytes", "TorchRL, two float32 stacks")


def preprocess_rows(rounds: int) -> Iterator[Row]:
    """Compare the conversion of one 400x600 frame to 64x64 grey bytes."""
    frame = frames(400, 600, 3)

    def pillow() -> Any:
        from PIL import Image

        return np.asarray(Image.fromarray(frame).convert("L").resize((64, 64), Image.Resampling.BILINEAR))

    calls: dict[str, Callable[[], Any]] = {"ours": lambda: preprocess_frame(frame), "pillow": pillow}
    if has("torch"):
        import torch

        weights = torch.tensor([0.2989, 0.587, 0.114])

        def peer() -> Any:
            grey = (torch.from_numpy(frame).float() @ weights)[None, None]
            return torch.nn.functional.interpolate(grey, (64, 64), mode="bilinear", antialias=True).byte().numpy()

        calls["torch"] = peer
    found = median_seconds(rounds * 5, **calls)
    for name in ("pillow", "torch"):
        note = needs("torch") or "PyTorch" if name == "torch" else "Pillow, which rounds grey values before it resizes"
        yield Row("grey and resized frame", found["ours"], found.get(name), "s", note)
