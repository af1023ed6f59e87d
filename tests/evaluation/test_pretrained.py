"""Agents that the package contains, and the files of such agents."""

import dataclasses
import hashlib
import json
import shutil
from importlib import import_module as script

import numpy as np
import pytest
from running import command

import jaxdqn
from jaxdqn.checkpoints.agent_files import AgentSpec
from jaxdqn.evaluation.loading import greedy_function
from jaxdqn.evaluation.pretrained import read_agent, write_agent
from jaxdqn.evaluation.trained_agent import TrainedAgent
from jaxdqn.pretrained import FOLDER, PRETRAINED

MEGABYTE = 2**20


def facts_of(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def agent():
    """A random agent on CartPole's vector."""
    config = jaxdqn.Config(pixels=False, output="somewhere/else")
    spec = AgentSpec(2, jaxdqn.ObsSpec((4,), np.float32))
    q_values, like = greedy_function(config, spec)
    rng = np.random.default_rng(0)
    params = {"params": _random(rng, like["params"])}
    return TrainedAgent(config, spec, params, q_values)


def _random(rng, tree):
    if isinstance(tree, dict):
        return {name: _random(rng, part) for name, part in tree.items()}
    return rng.normal(size=tree.shape).astype(np.float32)


@pytest.fixture
def folder(agent, tmp_path):
    write_agent(tmp_path, "small", agent, {"command": "jaxdqn train", "date": "2026-12-01"})
    return tmp_path


def test_an_agent_that_is_written_and_read_has_the_same_values(agent, folder):
    found = read_agent(folder, "small")
    obs = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    assert np.array_equal(found.q_values(obs), agent.q_values(obs))
    assert found.config == dataclasses.replace(agent.config, output=None)
    assert found.spec == agent.spec
    assert json.loads((folder / "small.json").read_text())["command"] == "jaxdqn train"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "small.npz").unlink(),
        lambda folder: (folder / "small.json").unlink(),
        lambda folder: (folder / "small.json").write_text("{}"),
        lambda folder: (folder / "small.json").write_text("[1"),
        lambda folder: (folder / "small.npz").write_bytes(b"PK" + (folder / "small.npz").read_bytes()),
        lambda folder: (folder / "small.npz").write_bytes((folder / "small.npz").read_bytes()[:-100]),
        lambda folder: _change(folder, sha256=5),
        lambda folder: _replace_arrays(folder, lambda content: content[: len(content) // 2]),
        lambda folder: _replace_arrays(folder, lambda content: b"PK\x03\x04" + content[4:60]),
        lambda folder: _replace_arrays(folder, lambda _: b""),
        lambda folder: _change_agent(folder, num_actions=3),
        lambda folder: _change_agent(folder, custom=["network"]),
        lambda folder: _change(folder, config={"gamma": 7}),
        lambda folder: _change(folder, agent={"num_actions": 0}),
        lambda folder: _change(folder, agent=None),
    ],
)
def test_damaged_files_are_reported_in_one_line(damage, folder):
    damage(folder)
    with pytest.raises(ValueError, match=r"^the pretrained agent 'small' is damaged: install jaxdqn again \(.*\)$"):
        read_agent(folder, "small")


def _change(folder, **fields):
    facts = json.loads((folder / "small.json").read_text())
    (folder / "small.json").write_text(json.dumps({**facts, **fields}))


def _change_agent(folder, **fields):
    facts = json.loads((folder / "small.json").read_text())
    _change(folder, agent={**facts["agent"], **fields})


def _replace_arrays(folder, change):
    """Damage the archive, and write the digest of what it is then."""
    content = change((folder / "small.npz").read_bytes())
    (folder / "small.npz").write_bytes(content)
    _change(folder, sha256=hashlib.sha256(content).hexdigest())


def test_an_agent_with_a_network_of_its_own_is_not_written(agent, tmp_path):
    own = TrainedAgent(agent.config, agent.spec._replace(custom=("network",)), agent.params, agent.q_values)
    with pytest.raises(ValueError, match="the agent has a network of its own: it cannot be loaded by name"):
        write_agent(tmp_path, "small", own, {})
    assert not list(tmp_path.iterdir())


def test_an_unknown_agent_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown pretrained agent 'cartpol': did you mean cartpole"):
        jaxdqn.load_pretrained("cartpol")
    with pytest.raises(ValueError, match="unknown pretrained agent 'x': choose from cartpole, ball"):
        jaxdqn.load_pretrained("x")


@pytest.mark.parametrize("name", PRETRAINED)
def test_each_agent_says_how_it_was_made_and_is_small(name):
    facts = facts_of(name)
    assert facts["command"] == script("pretrained_agents").COMMANDS[name]
    assert {"date", "frames", "versions", "episodes", "mean", "standard_error", "median", "min"} <= facts.keys()
    assert facts["episodes"] >= 100
    assert (FOLDER / f"{name}.npz").stat().st_size < 7 * MEGABYTE
    assert facts["config"]["env"] == {"cartpole": "CartPole-v1", "ball": "jaxdqn/Ball-v0"}[name]
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(PRETRAINED)
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 14 * MEGABYTE


@pytest.mark.slow
@pytest.mark.parametrize("name", PRETRAINED)
def test_each_agent_plays_within_the_range_that_it_says(name):
    facts = facts_of(name)
    found = jaxdqn.load_pretrained(name).evaluate(1, seed=0)  # the first of its hundred episodes
    assert facts["min"] <= found.min <= found.max <= facts["max"]
    assert facts["mean"] >= {"cartpole": 475, "ball": 10}[name]


@pytest.mark.slow
def test_the_command_line_plays_and_evaluates_them(tmp_path, capsys):
    words = ["--pretrained", "cartpole", "--seed", "1", "--max-episode-steps", "60"]
    assert command("play", *words, "--output", str(tmp_path / "a.gif")) == 0
    assert (tmp_path / "a.gif").stat().st_size > 10_000
    assert "an episode of return 60" in capsys.readouterr().out
    words = ["evaluate", "--pretrained", "ball", "--episodes", "1", "--max-episode-steps", "30", "--json"]
    assert command(*words) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["pretrained"], line["episodes"], line["max_episode_steps"]) == ("ball", 1, 30)
    assert line["run"] is line["checkpoint"] is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "RUN is missing: name the folder of a run, or use --pretrained cartpole|ball"),
        (["runs/x", "--pretrained", "ball"], "RUN 'runs/x' and --pretrained ball are two agents: name one"),
        (["--pretrained", "ball", "--checkpoint", "last"], "--checkpoint last needs a run"),
        (["--pretrained", "pong"], "invalid choice 'pong'"),
    ],
)
@pytest.mark.parametrize("name", ["play", "evaluate"])
def test_a_command_needs_one_agent(name, words, says, capsys):
    assert command(name, *words) == 2
    assert says in capsys.readouterr().err


def test_a_damaged_installation_is_reported_by_the_command_line(tmp_path, monkeypatch, capsys):
    shutil.copytree(FOLDER, tmp_path / "pretrained")
    (tmp_path / "pretrained" / "ball.npz").write_bytes(b"")
    monkeypatch.setattr("jaxdqn.evaluation.pretrained.FOLDER", tmp_path / "pretrained")
    assert command("evaluate", "--pretrained", "ball", "--episodes", "1") == 2
    assert "the pretrained agent 'ball' is damaged: install jaxdqn again" in capsys.readouterr().err
