"""The parts of a picture of an episode: the shown actions, their colours, and the positions of their labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdqn.reporting.gif_panel import colours_of, fit_scene, label_positions, shown_actions, value_text


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12), st.integers(1, 14))
def test_label_positions_keep_their_distance_and_limits(wanted, height):
    found = label_positions(np.sort(np.array(wanted)), height, 52, 224)
    assert (np.diff(found) >= height).all()
    assert found[0] >= 52
    assert found[-1] <= 224


def test_label_positions_change_only_where_labels_overlap():
    assert list(label_positions(np.array([60.0, 100.0, 104.0, 180.0]), 14, 52, 224)) == [60.0, 95.0, 109.0, 180.0]
    with pytest.raises(ValueError, match="20 labels of height 14 do not fit between 52 and 224"):
        label_positions(np.zeros(20), 14, 52, 224)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.floats(1, 1e4))
def test_the_text_of_a_value_fits_and_is_close_to_the_value(value, factor):
    largest = abs(value) * factor
    text = value_text(value, largest, lambda text: len(text) <= 7)
    assert len(text) <= 7
    assert abs(float(text) - value) <= max(0.5 * abs(value), 0.05 * largest)


def test_a_value_has_two_decimals_unless_it_is_very_small_or_large():
    forms = {4.36: "4.36", -0.001: "-0.001", 0.0: "0.00", 12345.6: "12346", -1234567.0: "-1.23e6", 1.2e-38: "1.2e-38"}
    assert {value: value_text(value, abs(value), lambda text: len(text) <= 7) for value in forms} == forms
    assert value_text(-0.001, 1.0, lambda text: True) == "0.00"  # not -0.00


def test_the_best_actions_are_shown_and_always_the_chosen_one():
    values = np.arange(20.0)
    assert list(shown_actions(values, 19)) == [19, 18, 17, 16, 15, 14]
    assert list(shown_actions(values, 3)) == [19, 18, 17, 16, 15, 3]
    assert list(shown_actions(np.zeros(4672), 3000)) == [0, 1, 2, 3, 4, 3000]
    assert list(shown_actions(values[:12], 0)) == list(range(11, -1, -1))


def test_shown_actions_have_different_colours_and_keep_their_own_if_possible():
    assert colours_of(np.array([3, 15, 27])) == [colours_of(np.array([n]))[0] for n in (3, 0, 1)]
    assert len(set(colours_of(np.arange(0, 144, 12)))) == 12


def test_every_scene_fits_its_area():
    for height, width in ((1, 1), (1, 9999), (9999, 1), (239, 361), (240, 360), (241, 359), (84, 84)):
        image = fit_scene(np.zeros((height, width, 3), np.uint8))
        assert 8 <= image.width <= 360
        assert 8 <= image.height <= 240
