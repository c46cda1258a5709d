"""Shedding under load with a rasteriser of any speed, on a clock that the test moves."""

import pytest

from avatar_viewer.live.pacing import SHEDDING, Pacing

WANTED = (512, 512)


class Machine:
    """Draws at a speed that the test chooses: so many seconds a full picture, and as much for everything else."""

    def __init__(self, raster=0.010, rest=0.010):
        self.now = 100.0
        self.raster, self.rest = raster, rest
        self.late = 0
        self.has_fixed_size = False
        self.pacing = Pacing(lambda: self.now)
        self.steps = []  # that were passed through
        self.pictures = self.frames = 0

    def run(self, seconds):
        end = self.now + seconds
        while self.now < end:
            began = self.now
            size = WANTED if self.has_fixed_size else self.pacing.size(WANTED)
            self.now += self.rest
            is_due = self.pacing.is_picture_due()
            if is_due:
                self.now += self.raster * size[0] * size[1] / (WANTED[0] * WANTED[1])
                self.pictures += 1
                self.pacing.note(self.now - began, self.late, has_fixed_size=self.has_fixed_size)
            self.frames += 1
            self.now = max(self.now, began + 1 / self.pacing.limit_fps(40))
            step = SHEDDING.index(self.pacing.quality)
            if not self.steps or self.steps[-1] != step:
                self.steps.append(step)
        return self

    @property
    def quality(self):
        return self.pacing.quality


def test_a_machine_that_keeps_up_sheds_nothing():
    machine = Machine().run(60)
    assert machine.steps == [0] and machine.pacing.badge == "" and machine.pacing.size(WANTED) == WANTED


def test_one_slow_frame_sheds_nothing():
    machine = Machine().run(3)
    machine.raster = 0.5
    machine.run(0.1)
    machine.raster = 0.010
    assert machine.run(10).steps == [0]


def test_slow_drawing_makes_the_picture_smaller_first_and_stops_there_when_it_helps():
    machine = Machine(raster=0.060, rest=0.010).run(20)
    assert max(machine.steps) <= 2 and machine.quality.scale < 1.0 and not machine.quality.is_fps_limit
    assert machine.pacing.badge == "busy: smaller picture"
    width, height = machine.pacing.size(WANTED)
    assert width == height and width % 2 == 0


def test_everything_is_shed_in_the_order_of_what_is_missed_least():
    machine = Machine(raster=0.4, rest=0.2).run(60)
    assert machine.steps == list(range(len(SHEDDING)))
    abouts = list(dict.fromkeys(quality.about for quality in SHEDDING if quality.about))
    assert abouts == ["smaller picture", "slower display", "fewer sampler steps", "repeated pictures"]
    before = machine.pictures, machine.frames
    machine.run(20)
    assert (machine.pictures - before[0]) * 4 == pytest.approx(machine.frames - before[1], abs=4), "each picture stands for four frames"


def test_late_motion_sheds_even_when_drawing_is_fast():
    machine = Machine().run(3)
    for _ in range(200):
        machine.late += 1
        machine.run(0.1)
    assert machine.quality.steps_share < 1.0


def test_what_was_shed_comes_back_when_the_load_goes_and_does_not_flutter():
    machine = Machine(raster=0.4, rest=0.2).run(40)
    machine.raster, machine.rest = 0.005, 0.005
    machine.steps.clear()
    machine.run(60)
    assert machine.steps == list(range(len(SHEDDING) - 1, -1, -1)), "step by step, none twice"
    assert machine.run(60).quality.about == ""


def test_a_load_at_the_edge_is_tried_again_ever_more_rarely():
    machine = Machine(raster=0.090, rest=0.004).run(600)  # fits at half the size with room to spare, not at three quarters
    changes = len(machine.steps)
    assert changes < 40, machine.steps
    machine.steps.clear()
    assert len(machine.run(300).steps) <= 12


def test_a_take_keeps_its_size_so_the_display_slows_down_instead():
    machine = Machine(raster=0.060, rest=0.010)
    machine.has_fixed_size = True
    machine.run(4)
    assert machine.steps[1] == 3 and machine.quality.is_fps_limit
