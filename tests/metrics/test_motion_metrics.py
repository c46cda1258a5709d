"""Motion metrics on cases worked by hand."""

import numpy as np
import pytest

from avatar_viewer.metrics.motion import (
    edit_slope,
    jitter_mm,
    landmark_distance_px,
    leakage,
    lip_vertex_error_mm,
    mouth_opening_difference_mm,
    obtained_aus,
    seam_ratio,
    upper_face_dynamics_deviation,
    vertex_rmse_mm,
)


def test_vertex_and_lip_errors():
    truth = np.zeros((2, 3, 3))
    predicted = truth.copy()
    predicted[0, 1] = (0.003, 0.004, 0)  # 5 mm
    predicted[1, 2] = (0, 0, 0.001)
    assert vertex_rmse_mm(predicted, truth) == pytest.approx(np.sqrt((25 + 1) / 6))
    assert lip_vertex_error_mm(predicted, truth, np.array([0, 1])) == pytest.approx(2.5)
    assert lip_vertex_error_mm(predicted, truth, np.array([0, 1, 2])) == pytest.approx(3.0)


def test_upper_face_dynamics():
    truth, still = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    truth[1, 0, 1] = 0.002  # squares 0 and 4e-6: std 2e-6 at one of two vertices
    assert upper_face_dynamics_deviation(still, truth, np.array([0, 1])) == pytest.approx(1e-6)
    assert upper_face_dynamics_deviation(truth, truth, np.array([0])) == 0


def test_mouth_opening():
    assert mouth_opening_difference_mm(np.array([1.0, 4.0]), np.array([3.0, 3.0])) == pytest.approx(1.5)


def test_a_seam_shows_as_speed_at_the_borders():
    line = np.arange(11.0)[:, None, None] * np.ones((1, 4, 3))
    assert seam_ratio(line, 5) == pytest.approx(1.0)
    line[5:] += 2  # the step into frame 5 is three times the others
    assert seam_ratio(line, 5) == pytest.approx((3 + 1) / 2)


def test_jitter_is_zero_on_a_line_and_counts_a_kick():
    line = np.arange(5.0)[:, None, None] * np.array([1e-3, 0, 0]) * np.ones((1, 2, 3))
    assert jitter_mm(line) == pytest.approx(0, abs=1e-12)
    line[2, :, 1] += 1e-3  # second differences 1, -2, 1 mm
    assert jitter_mm(line) == pytest.approx(4 / 3)


def test_obtained_aus_come_back_from_a_mixture_of_muscles_and_visemes():
    rng = np.random.default_rng(0)
    shapes = {name: rng.normal(size=(20, 3)) * 0.01 for name in ("AU12", "AU26", "AU04", "aa")}
    offsets = np.stack([0.5 * shapes["AU12"] + 0.3 * shapes["aa"], shapes["AU26"] - 0.4 * shapes["AU04"]])
    obtained = obtained_aus(offsets, shapes)
    assert obtained.shape == (2, 17)
    assert obtained[0, 8] == pytest.approx(2.5) and obtained[0, 15] == pytest.approx(0, abs=1e-9)
    assert obtained[1, 2] == 0 and obtained[1, 15] > 4
    assert np.all(obtained[:, [0, 1, 3]] == 0)


def test_the_slope_of_an_edit():
    assert edit_slope([0, 1, 2], [0.5, 1.5, 2.5]) == pytest.approx((1.0, 1.0))
    slope, fit = edit_slope([0, 1, 2], [0, 2, 1])
    assert slope == pytest.approx(0.5) and fit == pytest.approx(0.25)


def test_leakage_is_the_share_outside():
    difference = np.zeros((4, 3))
    difference[0, 0], difference[3, 1] = 0.003, 0.001
    assert leakage(difference, np.array([0, 1])) == pytest.approx(0.25)
    assert leakage(np.zeros((4, 3)), np.array([0])) == 0


def test_landmark_distance_leaves_out_depth_and_the_common_shift():
    truth = np.zeros((1, 4, 3))
    moved = truth + (0.1, 0.2, 0.3)
    assert landmark_distance_px(moved, truth, np.arange(4), 1000.0) == pytest.approx(0.0, abs=1e-9)
    moved[0, 0] += (0.004, 0.0, 0.5)  # mean moves by 1 mm: the others stand 1 mm off, this one 3
    assert landmark_distance_px(moved, truth, np.arange(4), 1000.0) == pytest.approx((3 + 1 + 1 + 1) / 4)
