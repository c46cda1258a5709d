"""What the sound card is given, at any speed; without a sound card."""

import numpy as np
import pytest

from avatar_viewer.live.audio_process import _Playing
from avatar_viewer.live.spool import SpoolFormat, SpoolReader, SpoolWriter

COUNT = 4800


@pytest.fixture
def reader(tmp_path):
    """A rising line: the value is five times the place."""
    spool = SpoolFormat(str(tmp_path / "s"), 48_000, 2, "int16")
    SpoolWriter(spool).append((np.arange(COUNT) * 5)[:, None].repeat(2, axis=1).astype(np.int16))
    return SpoolReader(spool)


def play(reader, rate, start=0, block=256):
    playing = _Playing(1, reader, start, True, rate)
    blocks = []
    while len(piece := playing.read(block)):
        blocks.append(piece)
    return np.concatenate(blocks)


def test_at_its_own_speed_the_samples_are_the_files(reader):
    assert np.array_equal(play(reader, 1.0, 100)[:, 0], np.arange(100, COUNT) * 5)


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.75, 1.5, 2.0])
def test_at_another_speed_the_same_sound_takes_another_time_without_a_seam(reader, rate):
    heard = play(reader, rate)[:, 0].astype(float)
    assert len(heard) == pytest.approx((COUNT - 1) / rate, abs=1), "up to the last sample"
    assert np.allclose(np.diff(heard), 5 * rate, atol=1.0), "blocks must join"
