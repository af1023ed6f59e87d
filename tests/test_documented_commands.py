"""Every command and every program that the README and `docs/` show runs, in a short form."""

import re
import shlex
import subprocess
import sys
import tomllib

import jax
import numpy as np
import pytest
from running import command
from test_documentation import PAGES, ROOT

import jaxdqn
from jaxdqn.checkpoints.compatibility import OLD_VALUES
from jaxdqn.cli.train_flags import parse_train
from jaxdqn.config_fields import is_atari
from jaxdqn.presets import PRESETS

SHORT = "--total-frames 64 --num-envs 2 --frames-per-batch 32 --batch-size 8 --updates-per-batch 1 --capacity 64"
SHORT += " --warmup-frames 32 --evaluate-every 0 --evaluation-episodes 1 --max-episode-steps 20 --frame-size 64"


SYMMETRIES = {"random_shift": 2, "mirror": True, "symmetries_of": "CartPole-v1", "max_episode_steps": 27_000}
"""Settings of the former preset that were not its defaults, or came later."""


def commands(language="sh"):
    """Lines of all shell blocks, without comments, those of scripts without their first line."""
    found = []
    for page, text in PAGES.items():
        for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                for part in " ".join(map(shlex.quote, words)).split(" '&&' "):
                    found += [(page, shlex.split(part))] if words else []
    return found


COMMANDS = commands()


def inline_commands():
    return [(page, found) for page, text in PAGES.items() for found in re.findall(r"`(jaxdqn train [^`|\[]*)`", text)]


def preset_of(words):
    name = words[0] if words and not words[0].startswith("-") else None
    return (None, words) if name is None else (PRESETS[name], words[1:])


def test_each_shell_command_is_of_a_kind_that_is_checked():
    kinds = {"jaxdqn", "python3", "srun", "zensical"}
    assert {words[0] for _, words in COMMANDS} <= kinds
    assert len(COMMANDS) >= 15


def test_flags_of_train_are_known():
    lines = [words[1:] if words[0] == "srun" else words for _, words in COMMANDS]
    lines += [shlex.split(line) for _, line in inline_commands()]
    for words in lines:
        if words[:2] == ["jaxdqn", "train"] and "--help" not in words:
            preset, flags = preset_of([word.replace("HOST", "10.0.0.1") for word in words[2:]])
            flags = [{"N": "1", "X": "Acrobot-v1"}.get(word, word) for word in flags]
            parse_train(flags, preset)


def test_the_command_with_former_settings_has_those_of_older_versions():
    line = next(line for _, line in inline_commands() if line.startswith("jaxdqn train cartpole --network motion"))
    found = parse_train(shlex.split(line)[3:], PRESETS["cartpole"])[0].to_dict()
    assert {**found, **SYMMETRIES} == {**OLD_VALUES, **SYMMETRIES}


def test_extras_that_are_installed_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = [words[-1] for _, words in COMMANDS if words[:4] == ["python3", "-m", "pip", "install"]]
    named = {name for word in installed for name in re.findall(r"\[(.*)\]", word)}
    assert {"test", "bench"} <= named <= set(extras)


def test_flags_of_scripts_exist():
    scripts = [words[1:] for _, words in COMMANDS if words[0] == "python3" and words[1].endswith(".py")]
    text = "\n".join(PAGES.values())
    scripts += [shlex.split(line) for line in re.findall(r"`python3 ((?:experiments|examples)/\w+\.py[^`]*)`", text)]
    assert len(scripts) >= 8
    for path, *words in scripts:
        shared = "".join(part.read_text() for part in ROOT.glob("experiments/shared/*.py"))
        source = (ROOT / path).read_text() + shared
        for flag in [word for word in words[: words.index("--") if "--" in words else None] if word.startswith("--")]:
            assert f'"{flag}"' in source, f"{path} has no {flag}"


@pytest.mark.several
def test_commands_run_in_a_short_form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = set()
    for _, words in COMMANDS:
        short = [word for word in words if word != "jaxdqn"]
        if words[0] != "jaxdqn" or tuple(short) in ran:
            continue
        ran.add(tuple(short))
        preset = preset_of(short[1:])[0] if short[0] == "train" else None
        if preset is not None and is_atari(preset.env):
            continue  # their large network takes a minute: tests/envs/test_atari_presets.py
        if short[0] == "train":
            pixels = [] if "Acrobot-v1" in short else ["--normalisation-frames", "20"]
            short = [*short, *SHORT.split(), *pixels]
        elif short[0] == "resume":
            short = ["resume", short[1], "--total-frames", "128"] if "--total-frames" in short else None
        elif short[0] in ("evaluate", "play"):
            agent = short[1:3] if short[1] == "--pretrained" else short[1:2]
            episodes = ["--episodes", "2"] if short[0] == "evaluate" else []
            short = [short[0], *agent, "--max-episode-steps", "20", *episodes]
        if short is not None:
            assert command(*short) == 0, short
    assert {words[0] for words in ran} == {"train", "resume", "evaluate", "play", "plot", "doctor"}


@pytest.mark.several
@pytest.mark.parametrize(
    ("example", "frames"), [("own_environment", 1_100), ("own_algorithm", 1_100), ("functional_environment", 1_100)]
)
def test_examples_run(example, frames, tmp_path):
    words = [sys.executable, ROOT / "examples" / f"{example}.py", "--frames", str(frames)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    values = [float(word) for word in re.findall(r"-?\d+\.\d*", done.stdout)]
    assert values
    if example == "own_environment":
        assert (tmp_path / "runs" / "catch" / "agent.gif").stat().st_size > 1_000


def block_with(words):
    return next(
        block
        for text in PAGES.values()
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if words in block
    )


@pytest.mark.several
def test_the_example_with_the_pieces_runs(tmp_path):
    script = tmp_path / "example.py"
    block = block_with("jaxdqn.host_loop(")
    script.write_text(block.replace("total_frames=2_000", "total_frames=300, warmup_frames=200"))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    frames, returns = zip(*(map(float, line.split()) for line in done.stdout.splitlines()[:-1]), strict=True)
    assert list(frames) == sorted(frames)
    assert 200 < frames[-1] <= 320
    assert 0 < sum(returns) + len(returns) <= frames[-1]  # an episode of n steps is n + 1 rows
    assert len(done.stdout.splitlines()[-1].strip("[ ]").split()) == 2  # a value for each action


@pytest.mark.several
def test_the_example_of_many_seeds_runs(monkeypatch):
    tiny = jaxdqn.Config(pixels=False, total_frames=256, num_envs=4, batch_size=16, capacity=512, warmup_frames=64)
    monkeypatch.setitem(jaxdqn.PRESETS, "cartpole", tiny)
    names: dict = {}
    exec(block_with("jax.vmap(run.init)"), names)
    batches = tiny.num_batches
    assert names["traces"].metrics["loss"].shape == (8, batches - names["run"].warm_up_batches)
    ends = np.asarray(names["states"].agent.learner.params["params"]["Dense_0"]["kernel"])
    assert len(np.unique(ends[:, 0, 0])) == 8
    assert names["returns"].shape == (8, 10)
    assert jax.numpy.isfinite(names["returns"]).all()


@pytest.mark.several
def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = block_with('output="runs/acrobot"')
    short = "total_frames=400, warmup_frames=100, max_episode_steps=50, evaluation_episodes=2"
    names: dict = {}
    exec(block.replace("total_frames=20_000", short), names)
    assert names["agent"](np.zeros((1, 6), np.float32)).shape == (1,)
    assert (tmp_path / "runs" / "acrobot" / "curve.png").exists()
