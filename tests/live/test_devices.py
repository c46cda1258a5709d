"""Sound out and in through a private sound server: the clock tells what is heard, nothing is lost, nothing hangs."""

import subprocess
import time

import numpy as np
import pytest
import soundfile

from avatar_viewer.live.audio_io import Microphone, Player
from avatar_viewer.live.decoding import PLAYBACK_RATE, Sound
from avatar_viewer.live.session import Session
from avatar_viewer.live.spool import SpoolReader

pytestmark = pytest.mark.sound


@pytest.fixture
def devices(sound_server, monkeypatch):
    for name, value in sound_server.environment.items():
        monkeypatch.setenv(name, value)
    return sound_server


@pytest.fixture
def chirp(tmp_path):
    """Four seconds whose pitch rises from 300 to 1100 Hz: every moment sounds different."""
    seconds = np.arange(4 * 16_000) / 16_000
    samples = 0.4 * np.sin(2 * np.pi * (300 * seconds + 100 * seconds**2))
    soundfile.write(tmp_path / "chirp.wav", samples.astype(np.float32), 16_000)
    return tmp_path / "chirp.wav"


def pitch(samples, rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


def until(condition, poll, what, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        poll()
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: did not happen")
        time.sleep(0.005)


@pytest.fixture
def player(devices):
    player = Player()
    until(lambda: player.is_ready or player.failure, player.poll, "the player being ready")
    assert player.failure is None
    yield player
    player.close()


def test_time_follows_the_samples_and_seeks_and_ends(player, chirp):
    with Sound(chirp) as sound:
        sound.wait_complete()
        player.load(sound.playback)
        player.complete()
        assert player.now() == 0.0
        player.play()
        until(lambda: player.now() > 0.3, player.poll, "playing")
        began, first = time.monotonic(), player.now()
        seen = [first]
        while time.monotonic() - began < 1.0:
            player.poll()
            seen.append(player.now())
            time.sleep(0.01)
        assert all(b >= a for a, b in zip(seen, seen[1:])), "time runs backwards"
        assert seen[-1] - first == pytest.approx(time.monotonic() - began, abs=0.15)
        player.pause()
        paused = player.now()
        time.sleep(0.2)
        assert player.now() == paused
        player.seek(3.2)
        assert player.now() == pytest.approx(3.2)
        player.play()
        until(lambda: player.has_ended, player.poll, "the end")
        assert player.now() == pytest.approx(4.0, abs=0.01)


def test_what_is_heard_is_the_place_that_was_asked_for(player, chirp, devices, tmp_path):
    with Sound(chirp) as sound:
        sound.wait_complete()
        player.load(sound.playback)
        player.complete()
        player.seek(2.0)
        with open(tmp_path / "heard.raw", "wb") as heard:
            command = ["parec", "--device=speaker.monitor", "--rate=48000", "--channels=1", "--format=s16le", "--latency-msec=20"]
            recorder = subprocess.Popen(command, stdout=heard)
            time.sleep(0.5)
            player.play()
            until(lambda: player.has_ended, player.poll, "the end")
            time.sleep(0.5)
            recorder.terminate()
            recorder.wait(5)
    samples = np.fromfile(tmp_path / "heard.raw", np.int16) / 32768
    loud = np.flatnonzero(np.abs(samples) > 0.05)
    sounding = samples[loud[0] : loud[-1]]
    assert len(sounding) / 48_000 == pytest.approx(2.0, abs=0.05), "sound is lost or doubled"
    assert pitch(sounding[4800:9600], 48_000) == pytest.approx(300 + 200 * 2.15, abs=25)


def test_without_a_sound_server_the_player_says_so(monkeypatch):
    monkeypatch.setenv("PULSE_SERVER", "unix:/nowhere")
    player = Player()
    until(lambda: player.failure, player.poll, "the failure")
    assert "\n" not in player.failure and not player.is_ready
    player.close()


def test_the_microphone_hears_what_is_spoken(devices, chirp):
    microphone = Microphone(delay_seconds=0.4)
    until(lambda: microphone.is_ready or microphone.failure, microphone.poll, "the microphone")
    assert microphone.failure is None
    speaking = devices.speak(chirp)
    until(lambda: microphone.peak > 0.1, microphone.poll, "a level")
    speaking.wait(20)
    time.sleep(0.5)
    microphone.poll()
    speech, playback = SpoolReader(microphone.speech), SpoolReader(microphone.playback)
    samples = speech.read(speech.oldest, speech.count - speech.oldest)[:, 0]
    loud = np.flatnonzero(np.abs(samples) > 0.05)
    assert (loud[-1] - loud[0]) / 16_000 == pytest.approx(4.0, abs=0.1), "samples are lost"
    middle = samples[loud[0] + 32_000 : loud[0] + 35_200]
    assert pitch(middle, 16_000) == pytest.approx(300 + 200 * 2.1, abs=25)
    assert playback.count / PLAYBACK_RATE == pytest.approx(speech.count / 16_000, abs=0.1)
    assert microphone.overflows == 0
    behind = speech.count / 16_000 - microphone.now()
    assert behind == pytest.approx(0.4, abs=0.15)
    microphone.close()


def test_an_unknown_microphone_is_refused_with_the_names_that_there_are(devices):
    microphone = Microphone("no such thing", delay_seconds=0.4)
    until(lambda: microphone.failure, microphone.poll, "the failure")
    assert "no such thing" in microphone.failure and "there are:" in microphone.failure
    microphone.close()


def test_a_frozen_sound_server_neither_hangs_the_session_nor_stops_the_picture(devices, tiny_avatar, chirp):
    session = Session()
    try:
        session.use_avatar(tiny_avatar)
        session.open_sound(chirp)
        session.is_looping = True
        until(lambda: session.clock.is_playing and session.now() > 0.3, session.update, "playing")
        assert session.silent_because == ""
        devices.freeze()
        slowest, began = 0.0, time.monotonic()
        while not session.silent_because and time.monotonic() - began < 15:
            before = time.monotonic()
            session.update()
            session.motion()
            slowest = max(slowest, time.monotonic() - before)
            time.sleep(0.01)
        assert "does not answer" in session.silent_because
        assert slowest < 0.5, "the frame loop was held up"
        now = session.now()
        until(lambda: session.now() > now + 0.2 or session.now() < now, session.update, "time going on")
    finally:
        devices.thaw()
        before = time.monotonic()
        session.close()
    assert time.monotonic() - before < 10


def test_a_live_voice_moves_the_face_at_a_constant_delay(devices, tiny_avatar, chirp):
    session = Session(has_sound_output=False)
    try:
        session.use_avatar(tiny_avatar)
        session.use_microphone()
        until(lambda: session.microphone is not None and session.microphone.is_ready, session.update, "the microphone")
        speaking = devices.speak(chirp)
        until(lambda: (session.timeline.end_seconds or 0) > 2.0, session.update, "motion")
        delays = []
        reader = SpoolReader(session.microphone.speech)
        for _ in range(50):
            session.update()
            delays.append(reader.count / 16_000 - session.now())
            time.sleep(0.02)
        speaking.wait(20)
        assert np.median(delays) == pytest.approx(session.microphone.delay_seconds, abs=0.1)
        parts = session.delay_parts
        assert parts.hop + parts.lookahead + parts.compute == pytest.approx(1000 * session.microphone.delay_seconds)
        assert parts.capture > 0 and parts.total >= 400
        session.stop_microphone()
        assert not session.motion().offsets.any() and not session.is_playing
    finally:
        session.close()
