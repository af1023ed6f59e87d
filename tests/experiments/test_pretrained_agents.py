"""The script that makes the agents that the package contains."""

from importlib import import_module as script

import pytest

import jaxdqn
from jaxdqn.evaluation.pretrained import read_agent
from jaxdqn.pretrained import PRETRAINED
from jaxdqn.storage.atomic import read_json

pytestmark = [pytest.mark.slow, pytest.mark.several]


def test_a_run_of_the_command_becomes_an_agent(tmp_path, monkeypatch, capsys):
    agents = script("pretrained_agents")
    monkeypatch.chdir(tmp_path)
    assert set(agents.COMMANDS) == set(PRETRAINED)
    command = "jaxdqn train --total-frames 200 --num-envs 2 --warmup-frames 64 --batch-size 8 --seed 3"
    monkeypatch.setitem(agents.COMMANDS, "ball", command)
    config = agents.config_of_command(command)
    assert (config.seed, config.total_frames) == (3, 200)
    for step in jaxdqn.train(config):
        run = step.folder
    words = ["ball", str(run), "--episodes", "2", "--output", str(tmp_path / "agents")]
    agents.main(words)
    facts = read_json(tmp_path / "agents" / "ball.json")
    assert (facts["command"], facts["episodes"]) == (command, 2)
    assert facts["min"] <= facts["mean"] <= facts["max"]
    assert "platform" not in facts["versions"]
    again = read_agent(tmp_path / "agents", "ball").evaluate(2, seed=0)
    assert facts["mean"] == round(again.mean, 1)
    assert "ball: {'mean': " in capsys.readouterr().out
    monkeypatch.setitem(agents.COMMANDS, "ball", command.replace("200", "300"))
    with pytest.raises(SystemExit) as stop:
        agents.main(words)
    assert stop.value.code == 2
    assert "holds a run of another config" in capsys.readouterr().err
    assert read_json(tmp_path / "agents" / "ball.json") == facts
    monkeypatch.setitem(agents.COMMANDS, "ball", command)
    (run / "evaluations.csv").write_text((run / "evaluations.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(SystemExit) as stop:
        agents.main(words)
    assert stop.value.code == 2
    assert "is not a whole run of 'jaxdqn train --total-frames 200" in capsys.readouterr().err


def test_the_commands_are_of_the_environments_they_name():
    agents = script("pretrained_agents")
    found = {name: agents.config_of_command(command).env for name, command in agents.COMMANDS.items()}
    assert found == {"cartpole": "CartPole-v1", "ball": "jaxdqn/Ball-v0"}
