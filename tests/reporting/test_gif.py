"""GIFs of environments of any size, with any number of actions and values of any magnitude."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image, ImageDraw

import jaxdqn
from jaxdqn.envs.gymnasium.building import make_env_fn
from jaxdqn.reporting.plots import COLOURS

RED = (230, 0, 0)
WAYS = ("UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT")
ATARI = ["NOOP", "FIRE", *WAYS, *(way + "FIRE" for way in WAYS)]


class Scene(gym.Env):
    """An environment that always draws the same picture, with episodes of a given length."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, gymnasium declares it so
    render_mode = "rgb_array"
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, num_actions, steps, picture):
        self.action_space = gym.spaces.Discrete(num_actions)
        self._steps, self._picture = steps, picture

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._step += 1
        return np.zeros(1, np.float32), -1.0, self._step == self._steps, False, {}

    def render(self):
        return self._picture


class Valued(jaxdqn.TrainedAgent):
    """An agent with given action values `[T, A]`: one row for each step."""

    frame_stack = None

    def __init__(self, values, picture=None, meanings=None):
        picture = np.full((40, 60, 3), 255, np.uint8) if picture is None else picture
        self._rows, self._scene = iter(values), Scene(values.shape[1], len(values), picture)
        if meanings is not None:
            self._scene.get_action_meanings = meanings

    def build_env(self, *, render=False):
        return make_env_fn("", pixels=False, env_fn=lambda: self._scene)()

    def q_values(self, obs):
        return next(self._rows)[None]


@pytest.fixture
def record(monkeypatch, tmp_path):
    """Return a function that records an episode: its pictures, and the texts, boxes and number of lines of each."""
    texts, counts = {}, {}
    text, line = ImageDraw.ImageDraw.text, ImageDraw.ImageDraw.line

    def remember(draw, xy, said, *args, **options):
        texts.setdefault(draw, []).append((said, draw.textbbox(xy, said, font=options["font"]), draw.im.size))
        text(draw, xy, said, *args, **options)

    def count(draw, *args, **options):
        counts[draw] = counts.get(draw, 0) + 1
        line(draw, *args, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", remember)
    monkeypatch.setattr(ImageDraw.ImageDraw, "line", count)

    def record_agent(values, **how):
        jaxdqn.record_gif(Valued(np.asarray(values, np.float32), **how), tmp_path / "agent.gif", every=1)
        with Image.open(tmp_path / "agent.gif") as gif:
            pictures = []
            for index in range(gif.n_frames):
                gif.seek(index)
                pictures.append(np.asarray(gif.convert("RGB")))
        return pictures, list(texts.values()), list(counts.values())

    return record_agent


def said(texts):
    return [text for text, _, _ in texts[-1]]


def random_values(num_actions, steps=5):
    return np.random.default_rng(0).normal(size=(steps, num_actions))


VALUES = {
    "as usual": lambda values: values,
    "all the same": lambda values: np.full_like(values, 4.36),
    "all 0": np.zeros_like,
    "huge": lambda values: values * 1e6 - 1e6,
    "beyond a million": lambda values: values * 3e37,
    "tiny and negative": lambda values: -np.abs(values) * 1e-7,
    "just below a thousand": lambda values: -999.9999 + 0 * values,
    "one far below the others": lambda values: np.where(np.arange(values.shape[1]) == 1, -1e5, values * 1e-3),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("num_actions", [1, 2, 6, 12, 13, 18, 4672])
def test_labels_do_not_overlap_and_stay_inside_the_picture(record, num_actions, kind):
    _, texts, _ = record(VALUES[kind](random_values(num_actions, steps=2)))
    for picture in texts:
        for _, (left, top, right, bottom), (width, height) in picture:
            assert left >= 0
            assert top >= 0
            assert right <= width
            assert bottom <= height
        for (one, a, _), (other, b, _) in itertools.combinations(picture, 2):
            separate = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert separate, f"{one!r} and {other!r} overlap"


@pytest.mark.parametrize("num_actions", [2, 12])
def test_up_to_twelve_actions_all_have_a_label(record, num_actions):
    values = random_values(num_actions)
    _, texts, _ = record(values)
    assert {text.split(":")[0] for text in said(texts) if ": " in text} == {str(i) for i in range(num_actions)}
    assert [text for text in said(texts) if "<" in text] == [f"{values[-1].argmax()}: {values[-1].max():.2f}<"]


def test_4672_actions_have_no_more_lines_than_18(record):
    _, _, (few, *_) = record(random_values(18))
    _, _, (*_, many) = record(random_values(4672))
    assert many <= few + 6  # lines to labels that were shifted
    assert many < 20


def test_the_best_of_many_actions_are_shown_with_the_total_number(record):
    values = random_values(4672)
    _, texts, _ = record(values)
    assert any("4,672" in text for text in said(texts))
    labelled = [int(text.split(":")[0]) for text in said(texts) if text[0].isdecimal()]
    assert set(labelled) == set(np.argsort(-values[-1])[: len(labelled)])
    assert len(labelled) == 6


def test_the_grey_band_covers_the_values_of_the_other_actions(record):
    low, high = np.full((4, 20), 1.0), np.full((4, 20), 2.0)
    low[:, 0] = high[:, 0] = 9.0  # the chosen action
    values = np.concatenate([low, high[:, 1:]], axis=1)  # [4, 39]
    values[:, -1] = 0.0
    pictures, _, _ = record(values)
    grey = np.all(np.abs(pictures[-1].astype(int) - (226, 226, 219)) <= 2, axis=-1)
    rows = np.flatnonzero(grey[60:214].any(axis=1)) + 60
    # The band goes from the lowest value, 0, at the bottom of the plot, to 2; the highest value of the plot is 9.
    assert 200 < rows.max() <= 214
    assert 170 < rows.min() < 180


def test_the_chosen_action_is_shown_even_if_others_have_the_same_value(record):
    _, texts, _ = record(np.zeros((3, 4672)))
    assert [text for text in said(texts) if "<" in text] == ["0: 0.00<"]


def test_labels_have_the_names_of_actions(record):
    _, texts, _ = record(random_values(18), meanings=lambda: ATARI)
    labels = [text.split(":")[0] for text in said(texts) if ": " in text and not text.startswith("last")]
    assert len(labels) == 6
    assert set(labels) <= set(ATARI)


def failing():
    raise RuntimeError("this environment has no meanings")


@pytest.mark.parametrize(
    "meanings",
    [
        pytest.param(failing, id="the method raises"),
        pytest.param(lambda: None, id="it returns None"),
        pytest.param(lambda: ["LEFT"], id="too few names"),
        pytest.param(lambda: ["LEFT", "LEFT"], id="the same name twice"),
        pytest.param(lambda: ["LEFT", " \n"], id="an empty name"),
        pytest.param(lambda: ["W" * 40, "M" * 40], id="names that are too wide"),
        pytest.param([1, 2], id="not a method"),
    ],
)
def test_actions_without_usable_names_are_numbered(record, meanings):
    _, texts, _ = record(random_values(2), meanings=meanings)
    assert {text.split(":")[0] for text in said(texts) if ": " in text} == {"0", "1"}


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        ((1, 1), 57_000),
        ((10, 10, 3), 57_000),
        ((2, 300, 3), 2_000),
        ((300, 2, 3), 1_900),
        ((84, 84), 28_000),
        ((64, 64, 1), 36_000),
        ((400, 600, 3), 86_000),
        ((210, 160, 3), 33_000),
        ((1, 5000, 3), 2_000),
    ],
    ids=str,
)
def test_scenes_of_every_size_are_visible(record, shape, pixels):
    picture = np.broadcast_to(np.uint8(RED) if shape[2:] == (3,) else np.uint8(90), shape)
    expected = RED if shape[2:] == (3,) else (90, 90, 90)
    pictures, _, _ = record(random_values(2), picture=picture)
    seen = np.abs(pictures[0][:, :360].astype(int) - expected).max(axis=-1) <= 2
    assert pixels <= seen.sum() <= 86_400


def test_a_grid_grows_with_sharp_edges(record):
    grid = np.random.default_rng(0).integers(0, 2, (10, 10, 3), np.uint8) * np.uint8(200)
    pictures, _, _ = record(random_values(2), picture=grid)
    scene = pictures[0][:, 60:300]  # the middle 240 of 360 columns
    assert np.abs(scene[12::24, 12::24].astype(int) - grid).max() <= 2
    assert np.array_equal(scene, scene[12::24, 12::24].repeat(24, 0).repeat(24, 1))


def test_a_scene_of_many_colours_does_not_change_the_colours_of_lines(record):
    noise = np.random.default_rng(0).integers(0, 256, (120, 180, 3), np.uint8)
    pictures, _, _ = record(random_values(2, steps=12), picture=noise)
    for colour in COLOURS[:2]:
        assert (np.abs(pictures[-1][:, 370:].astype(int) - colour).max(axis=-1) <= 4).sum() > 100


def test_the_values_of_the_first_step_are_visible(record):
    pictures, _, _ = record(random_values(2))
    plot = pictures[0][60:214, 376:608].astype(int)  # without labels
    for colour in COLOURS[:2]:
        assert (np.abs(plot - colour).max(axis=-1) <= 4).any()
