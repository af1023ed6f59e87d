"""The speed of DQN on Atari: ours and the peer in PyTorch, which computes what CleanRL's protocol says."""

import dataclasses
import json
from importlib import import_module as script

import numpy as np
import pytest

import jaxdqn

pytest.importorskip("ale_py", reason="extra atari")
pytest.importorskip("cv2", reason="extra test")


@pytest.mark.several
def test_our_demo_prints_its_speed(monkeypatch, capsys):
    fields = {"frame_size": 36, "network": "cnn", "updates_per_batch": 1, "batch_size": 4}
    monkeypatch.setitem(jaxdqn.PRESETS, "atari", dataclasses.replace(jaxdqn.PRESETS["atari"], **fields))
    script("atari_demo").main(["--steps", "320", "--capacity", "400"])
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"steps_per_second"}
    assert found["steps_per_second"] > 0
    for words, says in (
        (["--steps", "100"], "--steps 100 must be at least 320"),
        (["--steps", "320", "--capacity", "8"], "does not fit capacity 8: lower it"),
    ):
        with pytest.raises(SystemExit) as stop:
            script("atari_demo").main(words)
        assert stop.value.code == 2
        assert says in capsys.readouterr().err


@pytest.mark.several
def test_games_on_threads_are_compared_with_gymnasiums_wrappers():
    (row,) = script("shared.throughput_envs").game_rows(1)
    assert row.ours > 0 < row.peer


def test_a_ring_of_the_peer_gives_the_transitions_that_were_added():
    pytest.importorskip("torch", reason="extra bench")
    replay = script("shared.atari_peer").Replay(5)
    stack = lambda time: np.full((4, 84, 84), time, np.uint8)  # noqa: E731
    for time in range(12):
        replay.add(stack(time), time % 3, float(time), time % 4 == 3, stack(time + 1))
        obs, action, reward, done, next_obs = (part.numpy() for part in replay.sample(np.random.default_rng(time)))
        times = obs[:, 0, 0, 0].astype(int)
        assert set(times) == set(range(max(time - 3, 0), time + 1))
        np.testing.assert_array_equal(next_obs[:, 0, 0, 0], times + 1)
        np.testing.assert_array_equal(action, times % 3)
        np.testing.assert_array_equal(reward, times)
        np.testing.assert_array_equal(done, times % 4 == 3)


@pytest.mark.several
def test_the_peer_has_natures_network_and_plays():
    torch = pytest.importorskip("torch", reason="extra bench")
    peer = script("shared.atari_peer")
    learner = peer.Learner(6)
    assert sum(each.numel() for each in learner.network.parameters()) == 1_687_206
    stacks = torch.zeros(2, 4, 84, 84, dtype=torch.uint8)
    with torch.no_grad():
        values = learner.network(stacks / 255.0)
    action, reward, done = torch.tensor([1, 5]), torch.tensor([1.0, -1.0]), torch.tensor([0.0, 1.0])
    target = reward + 0.99 * values.max(1).values * (1 - done)
    expected = (values[[0, 1], action] - target).square().mean()
    assert torch.allclose(learner.update(stacks, action, reward, done, stacks), expected)
    assert peer.run(peer.WARM_UP_STEPS + 8, 100) > 0
