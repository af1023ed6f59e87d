"""Compare the preset `minatar` on Breakout with rejax's DQN of the same budget: returns and seconds, in one run.

    python3 -m pip install -e '.[bench]'
    python3 experiments/minatar_peer.py --frames 1000000 --seeds 200 201 202 --output runs/minatar-peer

Arguments: `--frames`, `--evaluations` (of each run, 20), `--seeds`, `--output`. Ours and rejax's runs alternate. Both
have eight games, an update of 32 transitions every four steps, the same learning rate, replay, warm-up, schedule of
epsilon and copies of the target, and ten episodes in each evaluation. These differ: our network has a convolution and a
dense layer of 128 with ReLU, rejax's has its default, two dense layers of 64 with swish; our loss is Huber's, rejax's
half the square; rejax takes a time limit for a terminal state, and evaluates with one random action in 200. Seconds
include compilation. It writes `minatar_peer.csv` (one row for each evaluation) and `minatar_peer_table.csv`, and prints
that table: the means of the last five evaluations, the seconds, and the seconds after which the running mean of five
evaluations first was at rejax's last one, for both.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnax
import jax
import numpy as np
from minatar_games import SEEDS
from rejax import get_algo
from rejax.evaluate import evaluate
from shared.command_line import positive
from shared.curves import Rows
from shared.seeds import markdown, train_side_by_side, write_table

from jaxdqn.config import Config
from jaxdqn.presets import PRESETS

EPISODES = 10


class FiveResults:
    """A game of gymnax with the `step` of gymnax 0.0.9, which rejax 0.1.3 calls: `done` in place of two ends."""

    def __init__(self, env: Any) -> None:
        """Wrap the game."""
        self._env = env

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the game."""
        return getattr(self._env, name)

    def __deepcopy__(self, memo: Any) -> FiveResults:
        """Return the same game: rejax copies its settings, and a game is a constant."""
        return self

    def step(self, *args: Any) -> tuple[Any, ...]:
        """Take one step."""
        obs, state, reward, terminated, truncated, info = self._env.step(*args)
        return obs, state, reward, terminated | truncated, info


def ours(config: Config, seed: int, every: int) -> Iterator[tuple[int, float]]:
    """Train and yield frames and the mean return of each evaluation."""
    for scores in train_side_by_side(config, [seed], every=every, episodes=EPISODES):
        yield scores.frames, float(scores.returns.mean())


def rejax(config: Config, seed: int, every: int) -> Iterator[tuple[int, float]]:
    """Train and yield frames and the mean return of each evaluation; one program trains to the next evaluation."""
    env, params = gymnax.make("Breakout-MinAtar")
    game = FiveResults(env)
    algorithm = get_algo("dqn").create(
        env=game,
        env_params=params,
        total_timesteps=config.run_frames,
        eval_freq=every,
        num_envs=config.num_envs,
        num_epochs=config.updates_per_batch * config.num_envs // config.frames_per_batch,
        batch_size=config.batch_size,
        buffer_size=config.capacity,
        fill_buffer=config.warmup_frames,
        learning_rate=config.learning_rate,
        gamma=config.gamma,
        max_grad_norm=np.inf if config.max_gradient_norm is None else config.max_gradient_norm,
        target_update_freq=config.target_period * config.frames_per_batch // config.updates_per_batch,
        polyak=0.0,  # copies
        eps_end=config.epsilon_end,
        exploration_fraction=config.epsilon_duration / config.run_frames,
        ddqn=config.double,
    )

    @partial(jax.jit, donate_argnums=0)
    def advance(state: Any, iterations: Any) -> Any:
        return jax.lax.fori_loop(0, iterations, lambda _, state: algorithm.train_iteration(state), state)

    play = jax.jit(lambda s, key: evaluate(algorithm.make_act(s), key, game, params, EPISODES)[1].mean())
    state = algorithm.init_state(jax.random.key(seed))
    ends = [*range(every, config.run_frames, every), config.run_frames]
    for start, frames in itertools.pairwise([0, *ends]):
        state = advance(state, (frames - start) // config.num_envs)
        if frames > config.warmup_frames:  # as ours
            yield frames, float(play(state, jax.random.fold_in(jax.random.key(2**31), frames)))


SIDES = {"jaxdqn": ours, "rejax": rejax}


def collect(config: Config, seeds: Sequence[int], every: int, output: Path) -> Rows:
    """Train all runs in turns; save and return a row for each evaluation."""
    rows: Rows = []
    for index, seed in enumerate(seeds):
        for name in list(SIDES)[:: 1 if index % 2 == 0 else -1]:  # each goes first in half of the turns
            started = time.monotonic()
            for frames, mean in SIDES[name](config, seed, every):
                seconds = round(time.monotonic() - started, 1)
                rows.append({"of": name, "seed": seed, "frames": frames, "mean": round(mean, 2), "seconds": seconds})
                print(f"{name}, seed {seed}, frame {frames:,}: {mean:.1f} after {seconds:.0f} s", flush=True)
            write_table(output / "minatar_peer.csv", rows)
    return rows


def table(rows: Rows, evaluations: int = 5) -> list[dict[str, Any]]:
    """Return a row for each seed: last running means of both, their seconds, and when each was at rejax's last one."""
    lines = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        runs = {name: [row for row in rows if (row["of"], row["seed"]) == (name, seed)] for name in SIDES}
        smooth = {name: running_means([row["mean"] for row in run], evaluations) for name, run in runs.items()}
        line = {"seed": seed, **{f"return of {name}": f"{means[-1]:.1f}" for name, means in smooth.items()}}
        line |= {f"seconds of {name}": f"{run[-1]['seconds']:.0f}" for name, run in runs.items()}
        for name, run in runs.items():
            pairs = zip(run, smooth[name], strict=True)
            first = next((row["seconds"] for row, mean in pairs if mean >= smooth["rejax"][-1]), None)
            line[f"{name} at rejax's return after"] = "never" if first is None else f"{first:.0f} s"
        lines.append(line)
    return lines


def running_means(values: Sequence[float], count: int) -> list[float]:
    """Return the mean of each value and those before it, `count` in all; -inf where there are fewer."""
    return [float(np.mean(values[end - count : end])) if end >= count else -np.inf for end in range(1, len(values) + 1)]


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description="DQN on MinAtar's Breakout beside rejax's.")
    parser.add_argument("--frames", type=positive, default=1_000_000)
    parser.add_argument("--evaluations", type=positive, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS["family"])
    parser.add_argument("--output", type=Path, default=Path("runs/minatar-peer"))
    options = parser.parse_args(args)
    try:
        config = dataclasses.replace(PRESETS["minatar"], total_frames=options.frames)
    except ValueError as error:
        parser.error(str(error))
    batches = -(-config.num_batches // options.evaluations)
    lines = table(collect(config, options.seeds, batches * config.frames_per_batch, options.output))
    write_table(options.output / "minatar_peer_table.csv", lines)
    print(markdown(lines))


if __name__ == "__main__":
    main()
