"""One process of `distributed_checks.py`, as `peer.py ROLE PORT INDEX COUNT FOLDER`: run the role and print JSON."""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import probes

import jaxdqn
from jaxdqn.algorithms import with_algorithm
from jaxdqn.checkpoints import run_state
from jaxdqn.config import Config
from jaxdqn.distributed.process_group import ProcessGroup
from jaxdqn.envs.vector.collector import Collector
from jaxdqn.envs.vector.episodes import make_vector_env
from jaxdqn.loops.host_loop import host_loop
from jaxdqn.observations import ObsSpec
from jaxdqn.parallel.parallel_agent import agent_of
from jaxdqn.replay.capacity import row_bytes
from jaxdqn.storage import free_memory

FRAMES = Config(
    pixels=True,
    network="motion",
    frame_size=44,
    frame_stack=2,
    normalisation_frames=20,
    total_frames=256,
    num_envs=4,
    num_devices=2,
    frames_per_batch=16,
    batch_size=8,
    updates_per_batch=2,
    capacity=256,
    warmup_frames=64,
    n_steps=3,
    evaluate_every=128,
    evaluation_episodes=1,
    checkpoint_every=64,
    prioritized=True,
    greedy_params="average",
    seed=3,
)
VECTORS = dataclasses.replace(FRAMES, pixels=False, total_frames=2_048)
RAINBOW = dataclasses.replace(with_algorithm(VECTORS, "rainbow"), loop="device", total_frames=320)


def digest(tree):
    """Return the SHA-256 of all bytes of a tree's arrays on this process."""
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
    return hashlib.sha256(b"".join(leaves)).hexdigest()


PROBES = (
    (probes.OneStep, [[1, -1], [-1, -1]], [[1, 1], [1, 1]]),
    (probes.ObservationValue, [[1, -1], [-1, -1]], [[1, 1], [-1, -1]]),
    (probes.ActionValue, [[1, -1], [-1, -1]], [[-1, 1], [-1, 1]]),
    (probes.Delayed, [[1, -1], [1, 0]], [[0.99, 0.99], [1, 1]]),
)
"""Environments, observations in them, and the value of each action at these observations."""


def learn_the_probes(folder):
    """Learn the known values of the probe environments, in at least 500 updates on all processes."""
    more = {"total_frames": 4_096, "batch_size": 32, "capacity": 2_048, "learning_rate": 3e-3, "epsilon_start": 1.0}
    config = dataclasses.replace(VECTORS, epsilon_end=1.0, tau=0.05, **more)
    agent = agent_of(config, num_processes=jax.process_count(), num_actions=2, obs=ObsSpec((2,), np.float32))
    found = []
    for env_class, observations, wanted in PROBES:
        envs = make_vector_env(env_class, config.num_envs // jax.process_count())
        collector = Collector(envs, seed=jax.process_index())
        *_, last = host_loop(agent, agent.init(jax.random.key(3)), collector, config, ProcessGroup())
        learner = last.state.learner
        assert int(learner.num_updates) >= 500
        assert last.state.replay.rows.action.shape == (512, 2)
        values = np.asarray(agent.q_values(learner.params, np.array(observations, np.float32)))
        assert np.allclose(values, wanted, atol=0.1), (env_class.__name__, values)
        found.append([digest(learner), digest(last.state.replay), last.frames])
    return found


def train(folder, config=FRAMES, stop_after=None):
    """Run `jaxdqn.train` to its end, or until all processes leave it after `stop_after` frames."""
    episodes = 0
    for step in jaxdqn.train(dataclasses.replace(config, output=str(folder / "run"))):
        episodes += len(step.progress.episodes)
        if step.progress.frames == stop_after:
            break
    state = step.progress.state
    ring = state.replay.rows
    found = {"learner": digest(state.learner), "ring": digest(ring), "obs": list(ring.obs.shape), "episodes": episodes}
    return {**found, "frames": step.progress.frames, "evaluated": step.evaluation is not None}


def stop_early(folder):
    return train(folder, stop_after=208)


def resume_run(folder):
    *_, step = jaxdqn.resume(folder / "run")
    return {"learner": digest(step.progress.state.learner), "ring": digest(step.progress.state.replay.rows)}


def device_loop(folder, stop_after=None):
    return train(folder, RAINBOW, stop_after)


def stop_device_loop_early(folder):
    return device_loop(folder, stop_after=208)


def fail_to_save_once(folder):
    """Train while the second process fails to write its first part of a state."""
    write, notes, tries = run_state.write_part, [], []

    def fail(*args, **options):
        tries.append(1)
        if jax.process_index() == 1 and len(tries) == 1:
            raise OSError("no room")
        return write(*args, **options)

    run_state.write_part = fail
    config = dataclasses.replace(FRAMES, pixels=False, output=str(folder / "run"))
    *_, step = jaxdqn.train(config, say=notes.append)
    return {"learner": digest(step.progress.state.learner), "notes": notes}


def share_memory(folder):
    """Train with memory for the shares of both processes, and again with memory for 24 rows less."""
    row = row_bytes((4,), np.float32, prioritized=True)
    config, found = dataclasses.replace(VECTORS, capacity=1_024, total_frames=64, warmup_frames=48), []
    for rows in (1_024, 1_000):
        available = rows * row + 64
        free_memory.psutil.virtual_memory = lambda available=available: SimpleNamespace(available=available)
        run = dataclasses.replace(config, output=str(folder / f"{rows}"))
        try:
            found.append([step.progress.frames for step in jaxdqn.train(run)][-1])
        except ValueError as error:
            found.append(str(error))
    return found


class NaNRewards(probes.OneStep):
    """An environment whose 40th reward is NaN on the second process."""

    steps = 0

    def step(self, action):
        obs, reward, *rest = super().step(action)
        self.steps += 1
        return obs, float("nan") if self.steps == 40 and jax.process_index() == 1 else reward, *rest


def fail_on_one(folder):
    config = dataclasses.replace(VECTORS, output=str(folder / "run"))
    try:
        for _ in jaxdqn.train(config, env_fn=NaNRewards):
            pass
    except FloatingPointError as error:
        return {"message": str(error)}
    return {"message": "no error"}


ROLES = (
    learn_the_probes,
    train,
    stop_early,
    resume_run,
    device_loop,
    stop_device_loop_early,
    fail_on_one,
    fail_to_save_once,
    share_memory,
)


def main(role, port, index, count, folder):
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(index), initialization_timeout=60)
    function = next(found for found in ROLES if found.__name__ == role)
    print(json.dumps(function(Path(folder))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
