import pytest

from avatar_viewer.live.clock import CounterClock, SteppedClock, WallClock


def test_a_wall_clock_runs_only_while_playing():
    time = [100.0]
    clock = WallClock(lambda: time[0])
    time[0] += 5
    assert clock.now() == 0.0
    clock.play()
    time[0] += 2
    assert clock.now() == pytest.approx(2.0)
    clock.pause()
    time[0] += 9
    assert clock.now() == pytest.approx(2.0)
    clock.seek(30.0)
    clock.play()
    time[0] += 1
    assert clock.now() == pytest.approx(31.0)
    clock.seek(4.0)
    assert clock.now() == pytest.approx(4.0)


def test_a_stepped_clock_moves_when_told_and_playing():
    clock = SteppedClock()
    clock.advance(1.0)
    assert clock.now() == 0.0
    clock.play()
    clock.advance(0.04)
    assert clock.now() == pytest.approx(0.04)


def test_a_counter_clock_smooths_jitter_and_never_runs_backwards():
    clock = CounterClock()
    clock.restart(3.0)
    assert clock.at(50.0) == 3.0
    last = 3.0
    for step in range(1000):
        monotonic = 50.0 + step * 0.01
        jitter = 0.008 if step % 2 else -0.008
        clock.report(3.0 + step * 0.01 + jitter, monotonic)
        now = clock.at(monotonic)
        assert now >= last
        last = now
    assert last == pytest.approx(3.0 + 999 * 0.01, abs=0.004)


def test_a_counter_clock_follows_drift_without_steps():
    clock = CounterClock()
    clock.restart(0.0)
    rate = 1.0005  # a sound card that runs 500 ppm fast
    for step in range(6000):
        monotonic = step * 0.02
        clock.report(monotonic * rate, monotonic)
        assert clock.at(monotonic) == pytest.approx(monotonic * rate, abs=0.002)


def test_a_counter_clock_stands_still_when_the_device_hangs():
    clock = CounterClock()
    clock.restart(0.0)
    clock.report(1.0, 10.0)
    assert clock.at(10.5) == pytest.approx(1.5)
    assert clock.at(15.0) == pytest.approx(2.0)
    assert clock.at(99.0) == pytest.approx(2.0)


def test_a_jump_of_the_counter_is_taken_at_once():
    clock = CounterClock()
    clock.restart(0.0)
    clock.report(0.0, 10.0)
    clock.report(5.0, 11.0)
    assert clock.at(11.0) == pytest.approx(5.0)


def test_every_clock_runs_at_the_rate_that_it_is_given():
    time = [0.0]
    wall = WallClock(lambda: time[0])
    wall.play()
    time[0] = 2.0
    wall.set_rate(0.5)
    time[0] = 4.0
    assert wall.now() == pytest.approx(3.0)
    stepped = SteppedClock()
    stepped.play()
    stepped.set_rate(2.0)
    stepped.advance(1.0)
    assert stepped.now() == 2.0
    counter = CounterClock()
    counter.restart(1.0, 0.5)
    for step in range(100):
        counter.report(1.0 + 0.5 * step * 0.02, step * 0.02)
    assert counter.at(2.0) == pytest.approx(2.0, abs=0.01)
