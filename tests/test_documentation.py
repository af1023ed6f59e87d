"""The README's examples run, and its numbers are the code's."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import other_environments
import pytest
import scaling
from shared import variants

import jaxdqn
from jaxdqn.networks.architectures import motion_cnn
from jaxdqn.networks.dueling import DuelingCNN

README = (Path(__file__).parent.parent / "README.md").read_text()
RESULTS = Path(__file__).parent.parent / "experiments" / "results"
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_example_with_the_pieces_runs(tmp_path):
    script = tmp_path / "example.py"
    script.write_text(BLOCKS[0].replace("total_frames=2_000", "total_frames=300, warmup_frames=200"))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    frames, returns = zip(*(map(float, line.split()) for line in done.stdout.splitlines()[:-1]), strict=True)
    assert list(frames) == sorted(frames)
    assert 200 < frames[-1] <= 320
    assert 0 < sum(returns) + len(returns) <= frames[-1]  # an episode of n steps is n + 1 rows
    assert len(done.stdout.splitlines()[-1].strip("[ ]").split()) == 2  # a value for each action


@pytest.mark.slow
def test_the_example_of_many_seeds_runs(monkeypatch):
    tiny = jaxdqn.Config(pixels=False, total_frames=256, num_envs=4, batch_size=16, capacity=512, warmup_frames=64)
    monkeypatch.setitem(jaxdqn.PRESETS, "cartpole", tiny)
    block = next(block for block in BLOCKS if "jax.vmap" in block)
    names: dict = {}
    exec(block, names)
    batches = tiny.num_batches
    assert names["traces"].metrics["loss"].shape == (8, batches - names["run"].warm_up_batches)
    assert names["traces"].ended.ended.shape == (8, batches, 8, 4)
    ends = np.asarray(names["states"].agent.learner.params["params"]["Dense_0"]["kernel"])
    assert len(np.unique(ends[:, 0, 0])) == 8
    assert names["returns"].shape == (8, 10)


def test_every_example_is_python():
    for block in BLOCKS:
        compile(block, "README.md", "exec")
    assert len(BLOCKS) == 5


def test_the_layout_names_every_module():
    package = Path(__file__).parent.parent / "jaxdqn"
    layout = README[README.index("## Layout") :]
    for path in package.rglob("*.py"):
        known = f"`{path.name}`" in layout and (path.parent == package or f"`{path.parent.name}/`" in layout)
        assert path.name.startswith("__") or known, f"the README's layout does not name {path.relative_to(package)}"


def test_results_and_sizes_are_those_of_the_code():
    with (RESULTS / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    for row in rows:
        line = next(line for line in README.splitlines() if line.startswith(f"| {row['seed']} |"))
        assert f"{int(row['solved_frames']):,} frames, {row['solved_seconds']} s" in line
        for which in ("best", "last"):
            same = which == "last" and row["best_frames"] == row["last_frames"]
            score = f"{row[which + '_mean']} ± {row[which + '_standard_error']}"
            assert ("the same" if same else score) in line
    for network, size in ((DuelingCNN(2), "1,262,691"), (motion_cnn(2), "152,163")):
        shapes = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 64, 64, 4), np.float32))
        assert f"{sum(x.size for x in jax.tree.leaves(shapes)):,}" == size
        assert size in README


@pytest.mark.parametrize("name", ["n_step_ends", "collapse"])
def test_tables_of_experiments_are_their_results(name):
    with (RESULTS / f"{name}.csv").open(newline="") as file:
        found = [{**row, "frames": int(row["frames"]), "mean": float(row["mean"])} for row in csv.DictReader(file)]
    for line in variants.table(found, list(dict.fromkeys(row["variant"] for row in found))).splitlines():
        assert line in README


def test_the_table_of_other_environments_is_their_results():
    with (RESULTS / "other_environments.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [{**row, **{name: float(row[name]) for name in ("mean", "standard_error", "seconds")}} for row in rows]
    found = [{**row, "seed": int(row["seed"])} for row in numbers]
    for line in other_environments.table(other_environments.TASKS, found).splitlines():
        assert line in README


@pytest.mark.slow
def test_the_table_of_links_is_the_arithmetic_of_the_code():
    for line in scaling.table().splitlines():
        assert line in README


def test_every_picture_is_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert len(pictures) >= 2
    for picture in pictures:
        assert (Path(__file__).parent.parent / picture).stat().st_size > 10_000


def test_commands_in_the_readme_exist():
    from jaxdqn.cli.commands import COMMANDS

    named = set(re.findall(r"^\| `jaxdqn (\w+)", README, re.MULTILINE))
    assert named == set(COMMANDS)
