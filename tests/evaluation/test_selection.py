"""Which agent a run keeps as its best, by evaluations whose returns are given, and which figures are unbiased."""

import jax
import numpy as np
import pytest

import jaxdqn
from jaxdqn.checkpoints import agent as agent_checkpoint
from jaxdqn.config import Config
from jaxdqn.envs.vector.episodes import Episode
from jaxdqn.evaluation import evaluator as evaluator_module
from jaxdqn.evaluation.selection import Selection
from jaxdqn.loops.progress import Progress
from jaxdqn.observations import ObsSpec

# Five of twenty episodes screen. What each agent gets in the first five and in the others, and what becomes of it.
AGENTS = [
    ((10, 10), 20, True),  # the first is always played whole
    ((9, 500), 5, False),  # screened out: its other episodes are not played
    ((11, 8), 20, False),  # passes the screen, but not the whole
    ((20, 30), 20, True),
    ((19, 50), 5, False),  # the best agent has 20 from these five seeds, and 27.5 from all
    ((20, 30), 20, True),  # of equal agents the latest
    ((27, 26), 20, False),  # below the best mean, and played whole: it got more from the first five
    ((28, 50), 20, True),
    ((500, 500), 20, True),
    ((500, 499), 20, False),
]


class Evaluator(evaluator_module.Evaluator):
    """Plays episodes of given returns, and counts them."""

    def __init__(self):
        self.played = []
        self.scores = (0, 0)

    def play(self, policy, seeds):
        first = not self.played
        self.played += seeds
        return [Episode(float(self.scores[0 if first else 1]), 1) for _ in seeds]


class Checkpoints(agent_checkpoint.Checkpoints):
    """Remembers which agents were kept as the best."""

    def __init__(self, **index):
        self.best_returns = {}
        self.first_index = index

    def index(self):
        return self.first_index

    def save(self, params, spec, *, frames, best_returns=None, protected_frames=frozenset()):
        if best_returns is not None:
            self.best_returns[frames] = best_returns


def make_selection(episodes, evaluator=None, **index):
    """A selection, what it plays with and keeps by, and `(frames) -> progress`."""
    config = Config(pixels=False, evaluation_episodes=episodes)
    agent = jaxdqn.make_agent(config, num_actions=2, obs_shape=(1,), obs_dtype=np.float32)
    state = agent.init(jax.random.key(0))
    evaluator, checkpoints = evaluator or Evaluator(), Checkpoints(**index)
    spec = agent_checkpoint.AgentSpec(2, ObsSpec((1,), np.float32))
    selection = Selection(config, agent, evaluator, checkpoints, spec)
    return selection, evaluator, checkpoints, lambda frames: Progress(frames, 0, 0.0, [], {}, state)


def test_agents_are_screened_against_the_best_agents_own_returns_on_the_same_seeds():
    selection, evaluator, checkpoints, progress = make_selection(20)
    seeds = set()
    for frames, (scores, episodes, is_best) in enumerate(AGENTS):
        evaluator.played, evaluator.scores = [], scores
        found = selection.evaluate(progress(frames))
        assert found.episodes == len(evaluator.played) == episodes
        assert found.mean == (scores[0] * 5 + scores[1] * (episodes - 5)) / episodes
        assert found.screening_mean == scores[0]
        assert (frames in checkpoints.best_returns) is is_best
        seeds.add(tuple(evaluator.played[:5]))
    assert len(seeds) == 1  # every agent is judged by the same episodes
    means = {frames: np.mean(returns) for frames, returns in checkpoints.best_returns.items()}
    assert means == {0: 10.0, 3: 27.5, 5: 27.5, 7: 44.5, 8: 500.0}


@pytest.mark.parametrize(("episodes", "screening"), [(1, 1), (4, 1), (5, 2), (20, 5)])
def test_a_quarter_is_rounded_up(episodes, screening):
    selection, evaluator, _, progress = make_selection(episodes)
    for returns in (2, 1):
        evaluator.played, evaluator.scores = [], (returns, returns)
        found = selection.evaluate(progress(0))
    assert found.episodes == screening


@pytest.mark.parametrize(("mean", "is_best"), [(11, True), (9, False)])
def test_against_a_best_agent_of_which_only_the_mean_is_known_all_episodes_are_played(mean, is_best):
    selection, evaluator, checkpoints, progress = make_selection(8, last=1, best=1, best_mean=10.0)
    evaluator.scores = (mean, mean)
    assert selection.evaluate(progress(2)).episodes == 8
    assert (2 in checkpoints.best_returns) is is_best


def test_a_resume_with_another_number_of_episodes_compares_those_of_the_same_seeds():
    index = {"last": 1, "best": 1, "best_mean": 4.0, "best_returns": [1.0, 2.0, 9.0, 4.0]}
    selection, evaluator, checkpoints, progress = make_selection(12, **index)
    evaluator.scores = (3, 5)  # three episodes screen: the best agent's first three have 4 in the mean
    assert selection.evaluate(progress(2)).episodes == 3
    evaluator.played, evaluator.scores = [], (4, 4)  # and its four have 4
    assert selection.evaluate(progress(3)).episodes == 12
    assert list(checkpoints.best_returns) == [3]


class Noisy(evaluator_module.Evaluator):
    """Plays for an agent of a true mean: the returns of its episodes are exponential, as CartPole's early ones are."""

    def __init__(self, rng):
        self.rng, self.true_mean = rng, 100.0

    def play(self, policy, seeds):
        return [Episode(float(self.rng.exponential(self.true_mean)), 1) for _ in seeds]


def test_a_simulation_tells_which_figures_are_unbiased():
    """400 runs of 8 agents that are all worth 100, twelve episodes an evaluation.

    The screening mean says 100. The mean of all that was played says more of agents that passed the screen, and less of
    those that did not. The mean of the best agent says far more, and 100 again from other seeds.
    """
    rng = np.random.default_rng(0)
    screening, passed, stopped, best, best_again = [], [], [], [], []
    selection, evaluator, checkpoints, progress = make_selection(12, Noisy(rng))
    for _ in range(400):
        selection._best_returns, selection._best_mean = None, -np.inf
        checkpoints.best_returns = {}
        for frames in range(8):
            found = selection.evaluate(progress(frames))
            screening.append(found.screening_mean)
            if frames:
                (passed if found.episodes == 12 else stopped).append(found.mean)
        best.append(np.mean(list(checkpoints.best_returns.values())[-1]))
        best_again.append(np.mean([episode.raw_return for episode in evaluator.play(None, range(12))]))
    error = np.std(screening) / len(screening) ** 0.5
    assert abs(np.mean(screening) - 100) < 3 * error
    assert np.mean(passed) > 110
    assert np.mean(stopped) < 85
    assert np.mean(best) > 125
    assert abs(np.mean(best_again) - 100) < 3 * np.std(best_again) / len(best_again) ** 0.5


def test_a_simulation_tells_that_an_agent_as_good_as_the_best_passes_the_screen_half_of_the_time_at_least():
    """Held against the best agent's mean over all its episodes it passes as well as against noise of another size.

    Where an agent's returns depend on the seed, as they do where some starts are harder, three hard seeds screen out
    an agent that is better at each seed; held against the best agent's own returns on them it always passes.
    """
    rng = np.random.default_rng(1)
    fair = biased = 0
    for _ in range(1_000):
        of_best = rng.exponential(100.0, 12)  # by seed
        better = of_best + 1.0
        fair += better[:3].mean() >= of_best[:3].mean()
        biased += better[:3].mean() >= of_best.mean()
    assert fair == 1_000
    assert biased < 500
