"""AU agreement on cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.metrics.actions import activity_f1, agreement, intraclass_correlation, loudness_floor


def test_f1_counts_frames_from_intensity_one_on():
    codes, truth = np.array([0.0, 1.0, 3.0, 0.9, 2.0]), np.array([0.0, 1.2, 0.5, 1.0, 2.0])
    # found: frames 1, 2, 4; true: 1, 3, 4; both: 1, 4 -> 2 * 2 / (3 + 3)
    assert activity_f1(codes, truth) == pytest.approx(2 / 3)


def test_f1_of_an_au_that_never_acts_is_undefined_and_left_out_of_means():
    assert np.isnan(activity_f1(np.zeros(4), np.full(4, 0.5)))
    codes = np.zeros((4, 17))
    codes[:, AU_NAMES.index("AU12")] = 2.0
    scores = agreement(codes, codes)
    assert scores["macro_f1"] == 1.0
    assert scores["by_au"]["AU12"]["f1"] == 1.0 and scores["by_au"]["AU25"]["f1"] is None


def test_icc_forgives_an_offset_but_not_a_scale():
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    assert intraclass_correlation(truth, truth) == pytest.approx(1.0)
    assert intraclass_correlation(truth + 1, truth) == pytest.approx(1.0)
    # x and 2x over 1..4: between-frame mean square 7.5, residual mean square 5/6 -> (7.5 - 0.8333) / (7.5 + 0.8333)
    assert intraclass_correlation(2 * truth, truth) == pytest.approx(0.8)
    assert intraclass_correlation(-truth, truth) == pytest.approx(-1.0)


def test_the_loudness_floor_reads_what_follows_loudness_and_nothing_else():
    rng = np.random.default_rng(0)
    frames = 400
    level = np.repeat(rng.uniform(0.02, 0.5, frames // 10), 10)
    sound = rng.normal(size=frames * 640) * np.repeat(level, 640)
    truth = np.stack([5 * (20 * np.log10(level) + 40) / 40, rng.uniform(0, 5, frames)], axis=1)
    floor = loudness_floor([sound], truth, 25.0)
    assert np.corrcoef(floor[:, 0], truth[:, 0])[0, 1] > 0.9
    assert abs(np.corrcoef(floor[:, 1], truth[:, 1])[0, 1]) < 0.35
