"""Blocks of a stream that come late, in a heap, or never: what is passed on keeps the time."""

import numpy as np
import pytest

from avatar_viewer.live.gaps import GapFiller

RATE, BLOCK = 16_000, 320  # 20 ms
AGE = 0.03  # from the air to the program


class Device:
    """Counts samples from 1 on; every block is stamped when it arrives."""

    def __init__(self):
        self.filler = GapFiller(RATE, AGE)
        self.now, self.counted, self.got = 50.0, 0, []

    def block(self, arrived=None, age=AGE):
        values = np.arange(self.counted + 1, self.counted + BLOCK + 1, dtype=np.float32)
        self.counted += BLOCK
        arrived = self.now if arrived is None else arrived
        self.got += self.filler.take(values, arrived, age)

    def run(self, blocks, jitter=0.0):
        for number in range(blocks):
            self.now += BLOCK / RATE
            self.block(self.now + jitter * (-1) ** number)

    @property
    def samples(self):
        return np.concatenate(self.got)


@pytest.fixture
def device():
    return Device()


def test_an_ordinary_stream_passes_at_once_and_unchanged(device):
    device.run(200, jitter=0.006)
    assert np.array_equal(device.samples, np.arange(1, 200 * BLOCK + 1)) and device.filler.lost_seconds == 0
    assert device.filler.captured_at == pytest.approx(device.now - AGE, abs=0.004), "smoother than the stamps"


def test_late_blocks_in_a_heap_are_no_loss(device):
    device.run(100)
    device.now += 0.5
    for number in range(25):
        device.block(device.now + 0.0001 * number, age=0.0)
    device.run(50)
    assert np.array_equal(device.samples, np.arange(1, 175 * BLOCK + 1)) and device.filler.lost_seconds == 0


def test_lost_blocks_become_silence_of_the_same_length(device):
    device.run(100)
    device.now += 1.7
    device.counted += round(1.7 * RATE)  # a few of the newest wait in the device, the rest never comes
    for _ in range(50):
        device.now += BLOCK / RATE
        device.block(age=0.9)  # as a stream has it that was moved elsewhere
    assert device.filler.lost_seconds == pytest.approx(1.7, abs=0.02)
    samples = device.samples
    heard = np.flatnonzero(samples)
    assert np.array_equal(samples[heard[-1]] - heard[-1], 1.0), "what follows stands where it was spoken"
    assert np.count_nonzero(samples == 0) == pytest.approx(1.7 * RATE, abs=0.02 * RATE)
    assert device.filler.captured_at == pytest.approx(device.now - AGE, abs=0.02)


def test_a_false_age_moves_nothing_and_a_lasting_one_is_believed(device):
    for _ in range(50):
        device.now += BLOCK / RATE
        device.block(age=0.4)  # as a stream that has just begun has it
    assert device.filler.captured_at == pytest.approx(device.now - AGE, abs=0.005)
    device.run(100)
    device.now += BLOCK / RATE
    device.block(age=0.99)
    assert device.filler.captured_at == pytest.approx(device.now - AGE, abs=0.005)
    for _ in range(60):
        device.now += BLOCK / RATE
        device.block(age=0.25)
    assert device.filler.captured_at == pytest.approx(device.now - 0.25, abs=0.01)
