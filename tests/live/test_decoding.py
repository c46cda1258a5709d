"""Every kind of sound file becomes the same two spools, or one clear line."""

import io
import struct

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


def wav_bytes(channels=1, rate=16_000, seconds=0.5, stated_bytes=None):
    """A 16-bit wav, by hand: its header can say anything."""
    data = (tone(16_000, seconds) * 32767).astype("<i2").tobytes()
    size = len(data) if stated_bytes is None else stated_bytes
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, (rate * channels * 2) % 2**32, (channels * 2) % 2**16, 16)
    return struct.pack("<4sI4s", b"RIFF", 0xFFFFFFFF, b"WAVE") + form + struct.pack("<4sI", b"data", size) + data


@pytest.mark.parametrize(
    "header", [{"channels": 0}, {"rate": 0}, {"rate": 4_000_000_000}, {"channels": 65_535}], ids=lambda header: " ".join(map(str, header.items()))
)
def test_headers_that_cannot_be_true_are_refused(tmp_path, header):
    (tmp_path / "odd.wav").write_bytes(wav_bytes(**header))
    refuse(tmp_path / "odd.wav")


def test_a_length_that_lies_is_not_believed(tmp_path):
    (tmp_path / "long.wav").write_bytes(wav_bytes(stated_bytes=0xFFFFFFF0))
    assert len(read_sound(tmp_path / "long.wav")) == 8000
    (tmp_path / "cut.wav").write_bytes(wav_bytes(seconds=2.0)[:20_000])
    assert len(read_sound(tmp_path / "cut.wav")) == pytest.approx(10_000, abs=30)


def test_a_file_that_ends_early_is_read_and_said_to_be_cut_off(tmp_path):
    whole, cut = tmp_path / "whole.mp3", tmp_path / "cut.mp3"
    soundfile.write(whole, tone(44_100, seconds=3.0), 44_100)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    for path, is_cut in ((whole, False), (cut, True)):
        with Sound(path) as sound:
            sound.wait_complete()
            assert any("of the 3.0 s that it states" in note for note in sound.notes) == is_cut


def test_the_sound_of_a_video_is_sound(tmp_path):
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=44_100, layout="mono")
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        for _ in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(tone(44_100, 1.0)[None], format="fltp", layout="mono")
        frame.sample_rate = 44_100
        for stream, piece in ((video, None), (audio, frame), (audio, None)):
            container.mux(stream.encode(piece))
    assert frequency(read_sound(path)) == pytest.approx(440, abs=3)


def test_any_bytes_in_place_of_a_header_end_in_sound_or_one_line(tmp_path):
    """Headers with bytes changed at random; one decoder after another, so only a few here."""
    whole, generator = wav_bytes(), np.random.default_rng(0)
    for number in range(6):
        data = bytearray(whole)
        for place in generator.integers(44, size=4):
            data[place] = int(generator.integers(256))
        path = tmp_path / f"mutant{number}.wav"
        path.write_bytes(data)
        try:
            assert np.isfinite(read_sound(path)).all()
        except InputError as error:
            assert "\n" not in str(error) and path.name in str(error)
