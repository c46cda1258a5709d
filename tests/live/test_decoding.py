"""Every kind of sound file becomes the same two spools, or one clear line."""

import io

import av
import numpy as np
import pytest
import soundfile

from avatar_viewer.errors import InputError
from avatar_viewer.live.decoding import PLAYBACK_RATE, Sound, read_sound
from avatar_viewer.live.spool import SpoolReader

SECONDS = 1.5


def tone(rate, seconds=SECONDS, hz=440.0):
    return (0.4 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def write_m4a(path, rate=44_100):
    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(rate)[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for piece in (frame, None):
            container.mux(stream.encode(piece))


def frequency(samples, rate=16_000):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


def make(path, kind):
    rates = {"wav8": 8_000, "wav96": 96_000, "flac44": 44_100, "mp3": 44_100, "ogg": 48_000}
    if kind in rates:
        soundfile.write(path, tone(rates[kind]), rates[kind])
    elif kind == "wav51":
        soundfile.write(path, np.stack([tone(48_000)] * 6, axis=1), 48_000)
    elif kind == "wav24stereo":
        soundfile.write(path, np.stack([tone(44_100)] * 2, axis=1), 44_100, subtype="PCM_24")
    else:
        write_m4a(path)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("wav8", "wav"), ("wav96", "wav"), ("wav51", "wav"), ("wav24stereo", "wav"), ("flac44", "flac"), ("mp3", "mp3"), ("ogg", "ogg"), ("m4a", "m4a")],
)
def test_every_common_format_gives_the_tone_at_16_khz(tmp_path, kind, suffix):
    path = tmp_path / f"tone.{suffix}"
    make(path, kind)
    with Sound(path) as sound:
        samples = sound.read_speech()
        assert len(samples) / 16_000 == pytest.approx(SECONDS, abs=0.05)
        assert frequency(samples) == pytest.approx(440, abs=3)
        assert 0.2 < np.abs(samples[2000:-2000]).max() < 0.7
        playback = SpoolReader(sound.playback)
        assert playback.count / PLAYBACK_RATE == pytest.approx(SECONDS, abs=0.05)
        heard = playback.read(0, playback.count)
        assert frequency(heard[:, 0] / 32767, PLAYBACK_RATE) == pytest.approx(440, abs=3)
        assert sound.is_complete and sound.info.channels == {"wav51": 6, "wav24stereo": 2}.get(kind, 1)


def test_nan_and_overload_are_mended_and_told(tmp_path):
    samples = tone(16_000)
    samples[100:200] = np.nan
    samples[300] = np.inf
    samples[400:410] = 7.0
    soundfile.write(tmp_path / "odd.wav", samples, 16_000, subtype="FLOAT")
    with Sound(tmp_path / "odd.wav") as sound:
        mended = sound.read_speech()
        assert np.isfinite(mended).all() and np.abs(mended[:290]).max() < 1.0
        assert any("101 of 24000 samples were NaN" in note for note in sound.notes)
        assert any("clipped" in note for note in sound.notes)


def refuse(path, *words):
    with pytest.raises(InputError) as caught:
        read_sound(path)
    line = str(caught.value)
    assert "\n" not in line and path.name in line
    for word in words:
        assert word in line


def test_bad_files_are_refused_in_one_line(tmp_path):
    refuse(tmp_path / "none.wav", "no such sound file")
    refuse(tmp_path, "not a file")
    (tmp_path / "empty.wav").touch()
    refuse(tmp_path / "empty.wav", "empty")
    (tmp_path / "text.wav").write_text("this is not sound " * 50)
    refuse(tmp_path / "text.wav", "not a sound file")
    soundfile.write(tmp_path / "short.wav", tone(16_000, 0.01), 16_000)
    refuse(tmp_path / "short.wav", "10 ms", "25 ms")
    soundfile.write(tmp_path / "header.wav", np.zeros(0, np.float32), 16_000)
    refuse(tmp_path / "header.wav", "empty")
    soundfile.write(tmp_path / "nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    refuse(tmp_path / "nan.wav", "NaN")


def test_a_picture_is_no_sound(tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "picture.mp3", format="PNG")
    refuse(tmp_path / "picture.mp3", "picture.mp3")


def test_damage_in_the_middle_keeps_what_was_before(tmp_path):
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(16_000, 4.0), 16_000, format="FLAC")
    data = bytearray(buffer.getvalue())
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    samples = read_sound(tmp_path / "cut.flac")
    assert 1.0 < len(samples) / 16_000 < 3.0


def test_names_that_are_not_utf8_or_look_like_protocols_are_opened(tmp_path):
    import os

    for name in (b"caf\xe9 \xff.wav", b"http:example.wav", b"concat:a|b.wav", "ünï ☺.wav".encode()):
        path = tmp_path / os.fsdecode(name)
        soundfile.write(io_path := str(tmp_path / "plain.wav"), tone(16_000, 0.5), 16_000)
        os.rename(io_path, path)
        assert len(read_sound(path)) == 8000
