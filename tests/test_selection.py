"""Which agent a run keeps as its best, by evaluations whose returns are given."""

import jax
import numpy as np
import pytest

import jaxdqn
from jaxdqn.config import Config
from jaxdqn.envs.vector import Episode
from jaxdqn.run import checkpoint, evaluation
from jaxdqn.run.progress import Progress
from jaxdqn.run.selection import Selection

# Five of twenty episodes screen. What each agent gets in the first five and in the others, and what becomes of it.
AGENTS = [
    ((10, 10), 20, True),  # the first is always played whole
    ((9, 500), 5, False),  # screened out: its other episodes are not played
    ((11, 8), 20, False),  # passes the screen, but not the whole
    ((20, 30), 20, True),
    ((27, 28), 5, False),  # 27 is below the best mean, 27.5
    ((28, 50), 20, True),
    ((500, 500), 20, True),
    ((500, 500), 20, True),  # of equal agents the latest
    ((500, 499), 20, False),
]


class Evaluator(evaluation.Evaluator):
    """Plays episodes of given returns, and counts them."""

    def __init__(self):
        self.played = []
        self.scores = (0, 0)

    def play(self, policy, seeds):
        first = not self.played
        self.played += seeds
        return [Episode(float(self.scores[0 if first else 1]), 1) for _ in seeds]


class Checkpoints(checkpoint.Checkpoints):
    """Remembers which agents were kept as the best."""

    def __init__(self):
        self.best_means = {}

    def index(self):
        return {}

    def save(self, params, spec, *, frames, best_mean, others):
        if best_mean is not None:
            self.best_means[frames] = best_mean


def make_selection(episodes):
    """A selection, what it plays with and keeps by, and `(frames) -> progress`."""
    config = Config(pixels=False, evaluation_episodes=episodes)
    agent = jaxdqn.make_agent(config, num_actions=2, obs_shape=(1,), obs_dtype=np.float32)
    state = agent.init(jax.random.key(0))
    evaluator, checkpoints = Evaluator(), Checkpoints()
    selection = Selection(config, agent, evaluator, checkpoints, checkpoint.AgentSpec(2, (1,), "float32"))
    return selection, evaluator, checkpoints, lambda frames: Progress(frames, 0, 0.0, [], {}, state)


def test_the_best_agent_has_the_best_mean_of_all_its_episodes_and_a_poor_one_plays_a_quarter():
    selection, evaluator, checkpoints, progress = make_selection(20)
    seeds = set()
    for frames, (scores, episodes, is_best) in enumerate(AGENTS):
        evaluator.played, evaluator.scores = [], scores
        found = selection.evaluate(progress(frames))
        assert found.episodes == len(evaluator.played) == episodes
        assert found.mean == (scores[0] * 5 + scores[1] * (episodes - 5)) / episodes
        assert (frames in checkpoints.best_means) is is_best
        seeds.add(tuple(evaluator.played[:5]))
    assert len(seeds) == 1  # every agent is judged by the same episodes
    assert checkpoints.best_means == {0: 10.0, 3: 27.5, 5: 44.5, 6: 500.0, 7: 500.0}


@pytest.mark.parametrize(("episodes", "screening"), [(1, 1), (4, 1), (5, 2), (20, 5)])
def test_a_quarter_is_rounded_up(episodes, screening):
    selection, evaluator, _, progress = make_selection(episodes)
    for returns in (2, 1):
        evaluator.played, evaluator.scores = [], (returns, returns)
        found = selection.evaluate(progress(0))
    assert found.episodes == screening
