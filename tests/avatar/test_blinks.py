"""Blinks and glances: pure functions of seed and time."""

import numpy as np
import torch

from avatar_viewer.avatar.blinks import BLINK_CELL_SECONDS, blink_codes, gaze_angles

MINUTE = np.arange(60 * 25) / 25


def test_any_cut_of_time_gives_the_same_blinks_and_glances():
    for function in (blink_codes, gaze_angles):
        whole = function(3, MINUTE)
        pieces = torch.cat([function(3, MINUTE[start : start + 7]) for start in range(0, len(MINUTE), 7)])
        assert torch.equal(whole, pieces)


def test_a_minute_holds_about_eighteen_full_blinks_with_open_eyes_between():
    codes = blink_codes(0, MINUTE)
    assert codes.min() == 0 and codes.max() <= 5
    onsets = int(((codes[1:] > 2.5) & (codes[:-1] <= 2.5)).sum())
    assert 60 / BLINK_CELL_SECONDS - 2 <= onsets <= 26
    assert (codes > 4.5).any() and (codes == 0).float().mean() > 0.8
    runs = [run for run in np.split(codes.numpy(), np.flatnonzero(codes.numpy() == 0)) if len(run) > 1]
    assert all(run.max() > 4.4 for run in runs[:-1]), "every blink closes the eye in some frame at 25 fps"


def test_seeds_differ_and_an_hour_later_there_is_still_life():
    assert not torch.equal(blink_codes(0, MINUTE), blink_codes(1, MINUTE))
    late = MINUTE + 3600
    assert blink_codes(0, late).max() > 4 and gaze_angles(0, late).abs().max() > 0.01


def test_the_eyes_move_in_quick_small_steps_and_return_to_the_viewer():
    fine = np.arange(60 * 500) / 500
    gaze = gaze_angles(5, fine)
    assert gaze.abs().amax(dim=0).tolist() < [0.12, 0.07]
    speed = gaze.diff(dim=0).norm(dim=1)
    assert (speed == 0).float().mean() > 0.9
    assert (gaze.norm(dim=1) == 0).float().mean() > 0.2
    assert torch.equal(gaze[0], torch.zeros(2))
    assert float(speed.max()) < 0.01, "no jump between cells"


def test_no_times_give_no_frames():
    assert blink_codes(0, np.zeros(0)).shape == (0,) and gaze_angles(0, np.zeros(0)).shape == (0, 2)
