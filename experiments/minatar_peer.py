"""Compare the preset `minatar` on Breakout with rejax's DQN of the same budget: returns and seconds, in one run.

    python3 -m pip install -e '.[bench]'
    python3 experiments/minatar_peer.py --frames 1000000 --seeds 200 201 202 --output runs/minatar-peer

Arguments: `--frames`, `--evaluations` (of each run, 20), `--seeds`, `--output`. Ours and rejax's runs alternate. Both
have eight games, an update of 32 transitions every four steps, the same learning rate, replay, warm-up, schedule of
epsilon and copies of the target, and ten episodes in each evaluation. The networks differ: ours has a convolution and
a dense layer of 128, rejax's has its default, two dense layers of 64. rejax takes a time limit for a terminal state.
Seconds include compilation. It writes `minatar_peer.csv` (one row for each evaluation) and `minatar_peer_table.csv`,
and prints that table: returns, seconds, and the seconds after which ours first had rejax's last return.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnax
import jax
import numpy as np
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
    from rejax import get_algo
    from rejax.evaluate import evaluate

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

    @jax.jit
    def advance(state: Any, iterations: Any) -> Any:
        return jax.lax.fori_loop(0, iterations, lambda _, state: algorithm.train_iteration(state), state)

    play = jax.jit(lambda s, key: evaluate(algorithm.make_act(s), key, game, params, EPISODES)[1].mean())
    state = algorithm.init_state(jax.random.key(seed))
    ends = [*range(every, config.run_frames, every), config.run_frames]
    for start, frames in itertools.pairwise([0, *ends]):
        state = advance(state, (frames - start) // config.num_envs)
        yield frames, float(play(state, jax.random.fold_in(jax.random.key(2**31), frames)))


SIDES = {"jaxdqn": ours, "rejax": rejax}


def collect(config: Config, seeds: Sequence[int], every: int, output: Path) -> Rows:
    """Train all runs in turns; save and return a row for each evaluation."""
    rows: Rows = []
    for seed in seeds:
        for name, train in SIDES.items():
            started = time.monotonic()
            for frames, mean in train(config, seed, every):
                seconds = round(time.monotonic() - started, 1)
                rows.append({"of": name, "seed": seed, "frames": frames, "mean": round(mean, 2), "seconds": seconds})
                print(f"{name}, seed {seed}, frame {frames:,}: {mean:.1f} after {seconds:.0f} s", flush=True)
            write_table(output / "minatar_peer.csv", rows)
    return rows


def table(rows: Rows, evaluations: int = 5) -> list[dict[str, Any]]:
    """Return a row for each seed: the mean of the last evaluations of both, their seconds, and when ours had theirs."""
    lines = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        runs = {name: [row for row in rows if (row["of"], row["seed"]) == (name, seed)] for name in SIDES}
        last = {name: float(np.mean([row["mean"] for row in run[-evaluations:]])) for name, run in runs.items()}
        seconds = {name: run[-1]["seconds"] for name, run in runs.items()}
        reached = next((row["seconds"] for row in runs["jaxdqn"] if row["mean"] >= last["rejax"]), None)
        lines.append(
            {
                "seed": seed,
                **{f"return of {name}": f"{value:.1f}" for name, value in last.items()},
                **{f"seconds of {name}": f"{value:.0f}" for name, value in seconds.items()},
                "ratio of seconds": f"{seconds['jaxdqn'] / seconds['rejax']:.2f}",
                "ours has rejax's return after": "never" if reached is None else f"{reached:.0f} s",
                "of rejax's seconds": "" if reached is None else f"{reached / seconds['rejax']:.2f}",
            }
        )
    return lines


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description="DQN on MinAtar's Breakout beside rejax's.")
    parser.add_argument("--frames", type=positive, default=1_000_000)
    parser.add_argument("--evaluations", type=positive, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[200, 201, 202])
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
