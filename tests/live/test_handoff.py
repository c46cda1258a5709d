import pytest
import torch

from avatar_viewer.live.handoff import FirstFailure, Latest, MotionTimeline
from avatar_viewer.types import MotionWindow


def window(start, count, value=1.0, fps=25.0, vertices=3):
    """Frame i has offsets start_index + i, so that positions in time can be read off."""
    index = torch.arange(count, dtype=torch.float32) + start * fps
    codes = index[:, None].expand(count, 17) * 0.01
    offsets = (index * value)[:, None, None].expand(count, vertices, 3)
    return MotionWindow(start, fps, codes, codes, torch.ones(count), offsets, torch.zeros(count, 2))


def timeline_of(*windows):
    timeline = MotionTimeline(3)
    for piece in windows:
        timeline.extend(piece)
    return timeline


def test_newest_value_wins_and_is_taken_once():
    slot = Latest()
    slot.put(1)
    slot.put(2)
    assert slot.take() == 2 and slot.take() is None


def test_the_first_failure_wins():
    failures = FirstFailure()
    failures.put("speech", ValueError("first"))
    failures.put("recorder", ValueError("echo"))
    assert failures.take().where == "speech" and failures.take() is None


def test_an_empty_timeline_is_neutral():
    frame = MotionTimeline(3).at(1.0)
    assert frame.offsets.shape == (3, 3) and not frame.offsets.any() and frame.voice == 0.0


def test_frames_are_exact_on_the_grid_and_interpolated_between():
    timeline = timeline_of(window(0.0, 5), window(0.2, 5))
    for index in range(10):
        assert timeline.at(index / 25).offsets[0, 0] == pytest.approx(index, abs=1e-4)
    assert timeline.at(2.5 / 25).offsets[0, 0] == pytest.approx(2.5, abs=1e-4)
    assert timeline.at(4.25 / 25).offsets[0, 0] == pytest.approx(4.25, abs=1e-4)  # across the windows' border
    assert timeline.late_frames == 0


def test_a_late_timeline_holds_then_eases_to_neutral_and_counts():
    timeline = timeline_of(window(0.0, 5))
    last = 4 / 25
    assert timeline.at(last + 0.19).offsets[0, 0] == pytest.approx(4.0)
    assert timeline.at(last + 0.45).offsets[0, 0] == pytest.approx(2.0, abs=0.01)
    assert not timeline.at(last + 0.8).offsets.any()
    assert timeline.late_frames == 3


def test_a_finished_timeline_is_not_late():
    timeline = timeline_of(window(0.0, 5))
    timeline.finish()
    timeline.at(1.0)
    assert timeline.late_frames == 0


def test_after_a_restart_the_old_pose_stays_until_new_motion_replaces_it():
    timeline = timeline_of(window(0.0, 5))
    timeline.restart()
    assert timeline.end_seconds is None
    assert timeline.at(0.12).offsets[0, 0] == pytest.approx(3.0)
    timeline.extend(window(9.0, 5))
    assert timeline.end_seconds == pytest.approx(9.2)
    assert timeline.at(0.0).offsets[0, 0] == pytest.approx(225.0)


def test_pruning_keeps_the_newest_window():
    timeline = timeline_of(window(0.0, 5), window(0.2, 5), window(0.4, 5))
    timeline.prune(100.0)
    assert timeline.end_seconds == pytest.approx(0.6)
    assert timeline.at(0.44).offsets[0, 0] == pytest.approx(11.0, abs=1e-3)
