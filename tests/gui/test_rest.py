"""How long the window sleeps between two frames, by a clock that a test moves."""

import pytest

from avatar_viewer.gui.rest import Need, Rest

STILL = Need(moving_fps=None, is_held=False)
HELD = Need(moving_fps=None, is_held=True)
WINDOW = (40, 40, 1180, 780)
LOOK = 0.004  # between two looks at mouse and keys


class World:
    """A clock, and a hand that touches at one moment."""

    is_able = True

    def __init__(self):
        self.now = 100.0
        self.touch_at = None
        self.looks = 0
        self.rest = Rest(self, monotonic=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds):
        assert seconds >= 0.0
        self.now += seconds

    def has_changed(self, *rectangle):
        assert rectangle == WINDOW
        self.looks += 1
        is_touched = self.touch_at is not None and self.now >= self.touch_at
        if is_touched:
            self.touch_at = None
        return is_touched

    def frame(self, need, work=0.0):
        """Seconds from this frame's begin to the next one's."""
        began = self.now
        self.now += work
        self.rest.wait(began, need, WINDOW)
        return self.now - began


@pytest.fixture
def world():
    return World()


def test_a_window_that_was_just_touched_draws_thirty_times_a_second_and_one_left_alone_twice(world):
    world.rest.note_touch()
    assert world.frame(STILL) == pytest.approx(1 / 30)
    world.now += 5.0
    assert world.frame(STILL) == pytest.approx(0.5)
    assert world.looks < 40, "it rests between looks"


def test_what_is_held_answers_at_once_and_what_is_passed_over_at_the_next_frame(world):
    for need, most in ((STILL, 1 / 30), (HELD, 0.012 + LOOK)):
        world.rest.note_touch()
        world.touch_at = world.now + 0.012
        waited = world.frame(need)
        assert 0.012 <= waited <= most + 1e-9


def test_an_idle_window_wakes_by_a_touch_and_hurries_for_a_while(world):
    world.now += 60.0
    world.touch_at = world.now + 0.2
    assert 0.2 <= world.frame(STILL) <= 0.2 + 0.031
    assert world.frame(STILL, work=0.015) == pytest.approx(0.015), "the next frame follows at once"
    world.now += 0.16
    assert world.frame(STILL) == pytest.approx(1 / 30), "then it waits for what comes"
    world.now += 1.0
    assert world.frame(STILL) == pytest.approx(0.5)


def test_a_change_is_followed_by_frames_without_a_pause(world):
    world.now += 60.0
    world.rest.hurry()
    assert world.frame(HELD, work=0.013) == pytest.approx(0.013)
    assert world.frame(HELD, work=0.002) == pytest.approx(1 / 120), "but not faster than anybody sees"


def test_what_moves_by_itself_keeps_its_rate_and_a_touch_comes_between(world):
    playing = Need(moving_fps=40.0, is_held=False)
    assert world.frame(playing, work=0.01) == pytest.approx(1 / 40)
    assert world.frame(playing, work=0.05) == pytest.approx(0.05), "a late frame is not made up for by waiting"
    world.touch_at = world.now + 0.015
    assert world.frame(Need(moving_fps=40.0, is_held=True), work=0.01) <= 0.015 + LOOK + 1e-9


def test_a_slow_machine_is_not_hurried(world):
    world.rest.hurry()
    world.touch_at = world.now
    assert world.frame(Need(moving_fps=40.0, is_held=True, most_fps=15.0), work=0.02) == pytest.approx(1 / 15)


def test_loading_gets_the_cores_whatever_is_touched(world):
    world.rest.hurry()
    world.touch_at = world.now
    assert world.frame(Need(moving_fps=40.0, is_held=True, is_loading=True)) == pytest.approx(1 / 12)
    assert world.looks == 0


def test_where_nothing_can_be_sensed_it_draws_to_see(world):
    world.is_able = False
    world.now += 5.0
    assert world.frame(STILL) == pytest.approx(1 / 12)
    world.now += 60.0
    assert world.frame(STILL) == pytest.approx(1 / 5)
    assert world.looks == 0
