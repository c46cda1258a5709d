"""Lip metrics on cases worked by hand."""

import math

import numpy as np
import pytest

from avatar_viewer.metrics.lips import (
    closure_rate,
    correlation,
    lip_gap_mm,
    loudness_baseline,
    loudness_curve,
    rest_rate,
    sync_offset_ms,
)

UPPER, LOWER = np.arange(9), np.arange(9, 18)


def lips(gaps_mm):
    """Nine pairs with these gaps upwards, a sideways and forward shift that must not count."""
    vertices = np.zeros((18, 3))
    vertices[:9, 1] = np.asarray(gaps_mm) / 1000
    vertices[:9, 0], vertices[:9, 2] = 0.005, 0.003
    return vertices


def test_the_gap_is_the_mean_of_the_central_third_in_millimetres():
    assert lip_gap_mm(lips([50, 50, 50, 3, 6, 9, 50, 50, 50]), UPPER, LOWER) == pytest.approx(6.0)


def test_lips_that_overlap_count_as_closed_pair_by_pair():
    assert lip_gap_mm(lips([0, 0, 0, -3, 3, 6, 0, 0, 0]), UPPER, LOWER) == pytest.approx(3.0)
    assert lip_gap_mm(lips([0, 0, 0, -3, -3, -3, 0, 0, 0]), UPPER, LOWER) == 0.0


def test_the_gap_of_a_sequence_and_of_another_up():
    sequence = np.stack([lips([2] * 9), lips([4] * 9)])
    np.testing.assert_allclose(lip_gap_mm(sequence, UPPER, LOWER), [2, 4])
    assert lip_gap_mm(lips([2] * 9), UPPER, LOWER, up=(1, 0, 0)) == pytest.approx(5.0)


def test_few_pairs_still_have_a_centre():
    for count in (1, 2, 3, 4, 5):
        vertices = np.zeros((2 * count, 3))
        vertices[:count, 1] = 0.001
        assert lip_gap_mm(vertices, np.arange(count), np.arange(count, 2 * count)) == pytest.approx(1.0)


def test_correlation_by_hand():
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert correlation([1, 2, 3], [5, 5, 5]) == 0.0


def test_loudness_of_a_tone_is_its_rms():
    samples = np.concatenate((np.zeros(8000), 0.5 * np.sin(np.arange(8000) * 2 * math.pi / 16)))
    curve = loudness_curve(samples, 25, 25)
    assert curve[5] == pytest.approx(-60) and curve[20] == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=0.01)


def test_the_loudness_baseline_finds_the_best_lag():
    rng = np.random.default_rng(0)
    level = rng.uniform(0.01, 1, 50)
    samples = np.repeat(level, 640) * rng.choice([-1, 1], 32000)
    curve = loudness_curve(samples, 50, 25)
    assert loudness_baseline(samples, np.roll(curve, 3), 25) == pytest.approx(1.0)
    assert loudness_baseline(samples, rng.uniform(0, 1, 50), 25) < 0.6


def test_a_closure_counts_within_forty_milliseconds():
    gap = np.full(25, 8.0)
    gap[10] = 0.4  # at 0.4 s
    assert closure_rate(gap, 25, np.array([0.4])) == 1.0
    assert closure_rate(gap, 25, np.array([0.44, 0.36])) == 1.0
    assert closure_rate(gap, 25, np.array([0.45, 0.4])) == 0.5
    assert math.isnan(closure_rate(gap, 25, np.array([])))


def test_rest_counts_quiet_frames_only():
    assert rest_rate(np.array([0.2, 1.4, 1.6, 9.0]), np.array([1, 1, 1, 0])) == pytest.approx(2 / 3)
    assert math.isnan(rest_rate(np.array([1.0]), np.array([0])))


@pytest.mark.parametrize("late_frames", [-3, -1, 0, 2])
def test_sync_offset_is_how_late_the_lips_are(late_frames):
    curve = np.random.default_rng(0).normal(size=200)
    assert sync_offset_ms(np.roll(curve, late_frames), curve, fps=25.0) == pytest.approx(40.0 * late_frames, abs=4.0)


def test_sync_offset_reads_between_frames():
    time = np.arange(400) / 25.0
    truth, late = (np.sin(2 * np.pi * 1.3 * t) + np.sin(2 * np.pi * 0.7 * t + 1) for t in (time, time - 0.018))
    assert sync_offset_ms(late, truth, fps=25.0) == pytest.approx(18.0, abs=2.0)
    assert math.isnan(sync_offset_ms(np.zeros(100), truth[:100], fps=25.0))
