"""Short versions of the experiments on the device, and the numbers that they report."""

import dataclasses
from importlib import import_module as script
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from csv_files import read_rows

import jaxdqn

pytestmark = pytest.mark.slow

TINY = [
    *("--no-pixels", "--total-frames", "256", "--num-envs", "4", "--batch-size", "16", "--capacity", "512"),
    *("--warmup-frames", "64", "--updates-per-batch", "1"),
]


@pytest.mark.several
def test_many_seeds_trains_all_seeds_and_learning_rates_and_reports_them(tmp_path, capsys):
    main = script("many_seeds").main
    words = ["--seeds", "2", "--learning-rates", "1e-3", "1e-9", "--every", "128", "--episodes", "3"]
    main([*words, "--output", str(tmp_path), "--", *TINY])
    rows = read_rows(tmp_path / "many_seeds.csv")
    assert [row["frames"] for row in rows] == ["128"] * 4 + ["256"] * 4
    assert {row["variant"] for row in rows} == {"learning rate 0.001", "learning rate 1e-09"}
    assert (tmp_path / "many_seeds.png").stat().st_size > 10_000
    said = capsys.readouterr().out
    assert "| learning rate 0.001 | 0 of 2 |" in said
    assert "4 runs of 256 frames" in said
    for wrong, says in (
        (["--seeds", "0"], "0 must be at least 1"),
        (["--learning-rates", "-1"], "must be above 0"),
        (["--learning-rates", "nan"], "must be above 0"),
        (["--", "--gamma", "2"], "gamma 2.0 must be between 0 and 1"),
        (["--seeds", "90000", "--", "--capacity", "2000000"], "bytes of replay of 90000 seeds"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*wrong[:2], "--output", str(tmp_path), *wrong[2:]] if wrong[0] != "--" else wrong)
        assert stop.value.code == 2
        assert says in capsys.readouterr().err


@pytest.mark.long
def test_a_factor_on_the_learning_rate_equals_training_with_that_learning_rate(tmp_path):
    import jax

    seeds = script("shared.seeds")
    base = dataclasses.replace(
        jaxdqn.Config(pixels=False), total_frames=256, num_envs=4, batch_size=16, capacity=512, warmup_frames=64
    )
    slow = dataclasses.replace(base, learning_rate=1e-4, learning_rate_end=5e-6)
    found = []
    for config, optimizer, factor in ((base, seeds.scaled_optimizer(base), 0.1), (slow, None, None)):
        run = jaxdqn.make_device_run(config, optimizer=optimizer)
        state = run.init(jax.random.key(0))
        state = state if factor is None else seeds.with_learning_rate(state, factor)
        found.append(jaxdqn.jit(run.train)(state)[0].agent.learner.params)
    for ours, theirs in zip(*map(jax.tree.leaves, found), strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)


def test_bootstrap_past_ends_gives_the_targets_of_torchrl():
    """With value 10, reward 1 and n 5, the targets of the last five steps are those of TorchRL 0.14."""
    wrong = script("n_step_ends").bootstrap_past_ends
    targets = []
    for steps_left in (5, 4, 3, 2, 1):
        terminated = jnp.arange(5) == steps_left - 1
        reward, discount, steps = wrong(jnp.ones(5), terminated, terminated, 0.99)
        assert int(steps) == steps_left
        targets.append(float(reward + discount * 10))
    assert targets == pytest.approx([14.41, 13.55, 12.67, 11.79, 1.0], abs=0.01)
    inside = wrong(jnp.ones(5), jnp.zeros(5, bool), jnp.zeros(5, bool), 0.99)
    assert float(inside[1]) == pytest.approx(0.99**5)


@pytest.mark.several
def test_variants_are_trained_once_compared_and_checked_for_other_settings(tmp_path, capsys):
    ends, variants = script("n_step_ends"), script("shared.variants")
    words = ["--seeds", "0", "1", "--together", "2", "--every", "128", "--episodes", "2", "--output", str(tmp_path)]
    variants.run_variants("n_step_ends", ends.VARIANTS, ends.__doc__, seeds=[0], args=[*words, "--", *TINY])
    rows = read_rows(tmp_path / "n_step_ends.csv")
    assert len(rows) == 2 * 2 * 2
    assert {row["variant"] for row in rows} == {"correct", "past the end"}
    assert "| past the end | 0 of 2 | - |" in capsys.readouterr().out
    assert (tmp_path / "n_step_ends.png").stat().st_size > 10_000
    kept = (tmp_path / "correct-1.csv").stat().st_mtime_ns
    variants.run_variants("n_step_ends", ends.VARIANTS, ends.__doc__, seeds=[0], args=[*words, "--", *TINY])
    assert (tmp_path / "correct-1.csv").stat().st_mtime_ns == kept
    for wrong, says in (
        (["--only", "nothing"], "invalid choice: 'nothing'"),
        ([*words, "--", *TINY, "--gamma", "0.5"], "correct.json says that runs there have gamma 0.99 and not 0.5"),
        ([*words, "--episodes", "3", "--", *TINY], "episodes 2 and not 3: choose another --output"),
    ):
        with pytest.raises(SystemExit) as stop:
            variants.run_variants("n_step_ends", ends.VARIANTS, ends.__doc__, seeds=[0], args=wrong)
        assert stop.value.code == 2
        assert says in capsys.readouterr().err
    # Only the requested runs are shown: one variant and one seed of those in the folder.
    one = [*words[:2], *words[3:], "--only", "correct"]
    variants.run_variants("n_step_ends", ends.VARIANTS, ends.__doc__, seeds=[0], args=[*one, "--", *TINY])
    assert {(row["variant"], row["seed"]) for row in read_rows(tmp_path / "n_step_ends.csv")} == {("correct", "0")}


def test_levers_change_one_thing_each():
    levers = script("cartpole_levers")
    for variant in levers.VARIANTS[1:]:
        assert len(variant.changes) + len(variant.pieces) == 1, variant.name
        assert dataclasses.replace(levers.CARTPOLE, **variant.changes) != levers.CARTPOLE or variant.pieces
    names = [variant.name for variant in levers.VARIANTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_no_curve_of_a_later_panel_is_cut(scale, tmp_path, monkeypatch):
    """The panels share their axes, and a later variant may have returns that are larger, or negative."""
    from matplotlib.figure import Figure

    drawn, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *to, **how: (drawn.append(figure), save(figure, *to, **how)))
    rows = [
        {"variant": name, "seed": 0, "frames": frames, "mean": scale * size * frames}
        for name, size in (("small", 1), ("large", 7))
        for frames in (10, 20)
    ]
    script("shared.curves").draw(rows, ["small", "large"], tmp_path / "a.png")
    for panel in drawn[0].axes:
        low, high = panel.get_ylim()
        assert low <= min(0, scale * 140) < max(0, scale * 140) <= high


def test_the_table_of_levers_counts_seeds_that_reach_475(tmp_path):
    rows = [
        {"variant": "a", "seed": seed, "frames": frames, "mean": mean}
        for seed, means in ((0, (100, 480, 300)), (1, (475, 200, 300)), (2, (0, 474.9, 300)))
        for frames, mean in zip((1_000, 2_000, 3_000), means, strict=True)
    ]
    text = script("cartpole_levers").table(rows, ["a"], configs=[], folder=tmp_path)
    assert text.splitlines()[-1].startswith("| a | 2 | 2,000 | 3 | 300.0 [300.0, 300.0] |")
    assert read_rows(tmp_path / "cartpole_levers_table.csv")[0]["reach 475"] == "2"


@pytest.mark.several
@pytest.mark.parametrize(
    "name", ["network without edge columns", pytest.param("AdamW, decay 1e-2", marks=pytest.mark.long)]
)
def test_a_lever_may_be_a_network_or_an_optimizer(name, tmp_path, capsys):
    words = ["--only", name, "--seeds", "5", "--episodes", "1", "--output", str(tmp_path)]
    tiny = "--total-frames 96 --batch-size 4 --updates-per-batch 1 --warmup-frames 32 --frame-size 44"
    script("cartpole_levers").main([*words, "--", *tiny.split(), "--normalisation-frames", "20", "--n-steps", "2"])
    assert read_rows(tmp_path / "cartpole_levers.csv")[0]["variant"] == name
    assert f"| {name} | 0 | - | 1 |" in capsys.readouterr().out


def test_tables_and_interquartile_means_match_values_computed_by_hand():
    variants, seeds = script("shared.variants"), script("shared.seeds")
    rows = [
        {"variant": "a", "seed": seed, "frames": frames, "mean": mean}
        for seed, means in ((0, (100, 480, 300, 500)), (1, (100, 200, 300, 400)))
        for frames, mean in zip((1_000, 2_000, 3_000, 4_000), means, strict=True)
    ]
    assert variants.table(rows, ["a"]).splitlines()[-1] == (
        "| a | 1 of 2 | 2,000 | 400, at least 300 | 50% | 450, at least 400 |"
    )
    assert seeds.interquartile_mean(np.array([0, 1, 2, 3, 4, 5, 6, 1000])) == 3.5
    assert seeds.interquartile_mean(np.array([7.0])) == 7
    low, high = seeds.bootstrap_interval(np.array([[1.0], [2.0], [3.0], [4.0]] * 5))
    assert 1.5 < low < 2.5 < high < 3.5
    assert seeds.bootstrap_interval(np.full((4, 3), 5.0)) == (5, 5)


def test_the_twin_experiment_prints_its_comparisons_and_writes_a_picture(tmp_path, capsys):
    twin = script("cartpole_twin")
    twin.main(["--trajectories", "2", "--states", "5", "--output", str(tmp_path)])
    rows = {row["what"]: float(row["value"]) for row in read_rows(tmp_path / "cartpole_twin.csv")}
    assert rows["physics: step_error"] < 3
    assert 0 < rows["picture: mean"] < 0.1
    assert "| physics: steps |" in capsys.readouterr().out
    assert (tmp_path / "cartpole_twin.png").stat().st_size > 1_000
    with pytest.raises(SystemExit) as stop:
        twin.main(["--trajectories", "0", "--states", "0", "--transfer", str(tmp_path / "no")])
    assert stop.value.code == 2
    assert "does not exist" in capsys.readouterr().err
    with pytest.raises(ValueError, match="trained on Acrobot-v1 and not on CartPole-v1"):
        twin.check_cartpole(SimpleNamespace(config=jaxdqn.Config(env="Acrobot-v1")))
    config = jaxdqn.Config(pixels=False, total_frames=128, warmup_frames=64, output=str(tmp_path / "run"))
    assert list(jaxdqn.train(config))
    words = ["--trajectories", "0", "--states", "0", "--episodes", "2", "--output", str(tmp_path)]
    twin.main([*words, "--transfer", str(tmp_path / "run")])
    rows = read_rows(tmp_path / "cartpole_transfer.csv")
    assert [(row["trained with"], row["agent"]) for row in rows] == [("--loop host", "best"), ("--loop host", "last")]
    assert all(8 <= float(row["on ours"].split(",")[0]) <= 500 for row in rows)
