"""Devices that come, go, move and hang, with a private sound server: the session says so, goes on, and takes them up again.

AVATAR_VIEWER_DEVICE_CYCLES=3 has each fault happen three times; run with `-s` to see how long everything took.
"""

import os
import subprocess
import time

import numpy as np
import pytest
import soundfile
import torch

from avatar_viewer.live.device_list import DeviceWatch
from avatar_viewer.live.session import Session
from avatar_viewer.live.spool import SpoolReader
from avatar_viewer.live.take_file import TakeFile
from avatar_viewer.types import Render

pytestmark = pytest.mark.sound
CYCLES = int(os.environ.get("AVATAR_VIEWER_DEVICE_CYCLES", "1"))

USB = ("load-module", "module-null-sink", "sink_name=usb", "rate=48000", "channels=1", "sink_properties=device.description=UsbCable")
USB_MICROPHONE = ("load-module", "module-remap-source", "master=usb.monitor", "source_name=usb_microphone", "source_properties=device.description=UsbMicrophone")


@pytest.fixture
def devices(sound_server, monkeypatch):
    for name, value in sound_server.environment.items():
        monkeypatch.setenv(name, value)
    yield sound_server
    for name in ("module-remap-source", "module-null-sink"):
        for line in sound_server.pactl("list", "short", "modules").splitlines():
            number, module, arguments = (line.split("\t") + ["", ""])[:3]
            if module == name and "usb" in arguments:
                sound_server.pactl("unload-module", number)


def plug(server):
    """A microphone named UsbMicrophone appears; gives what `unplug` needs."""
    server.pactl(*USB)
    return server.pactl(*USB_MICROPHONE).strip()


def unplug(server, number):
    server.pactl("unload-module", number)


@pytest.fixture
def session(tiny_avatar):
    session = Session(has_sound_output=False)
    session.use_avatar(tiny_avatar)
    yield session
    session.close()


def until(session, condition, what, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        session.update()
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: did not happen; messages: {[message.text for message in session.messages]}")
        time.sleep(0.01)


def said(session, text):
    return lambda: any(text in message.text for message in session.messages)


def test_a_device_that_is_plugged_in_is_listed_and_leaves_the_list_again(devices):
    watch = DeviceWatch()

    def wait_for(condition):
        deadline = time.monotonic() + 15
        while not condition():
            watch.poll()
            assert time.monotonic() < deadline, watch.found
            time.sleep(0.02)

    try:
        wait_for(lambda: watch.found.inputs)
        assert "UsbMicrophone" not in watch.found.inputs and not any("Monitor of" in name[:10] for name in watch.found.inputs)
        number = plug(devices)
        wait_for(lambda: "UsbMicrophone" in watch.found.inputs and "UsbCable" in watch.found.outputs)
        unplug(devices, number)
        wait_for(lambda: "UsbMicrophone" not in watch.found.inputs)
    finally:
        watch.close()


def test_no_sound_server_is_a_reason_and_not_a_wait_without_end(monkeypatch):
    monkeypatch.setenv("PULSE_SERVER", "unix:/nowhere")
    monkeypatch.setenv("ALSA_CONFIG_PATH", "/dev/null")
    watch = DeviceWatch()
    try:
        deadline = time.monotonic() + 15
        while watch.is_asking and time.monotonic() < deadline:
            watch.poll()
            time.sleep(0.02)
        assert not watch.is_asking and watch.found.devices == () and watch.found.reason
    finally:
        watch.close()


def test_a_microphone_that_is_moved_elsewhere_by_the_system_is_said_and_taken_up_again(devices, session):
    number = plug(devices)
    session.use_microphone("UsbMicro")
    until(session, lambda: session.microphone.route, "the microphone")
    assert session.microphone.name == session.microphone.route == "UsbMicrophone"
    for _ in range(CYCLES):
        session.take_messages()
        began = time.monotonic()
        unplug(devices, number)
        until(session, said(session, "UsbMicrophone is gone"), "the message")
        told = time.monotonic() - began
        assert session.microphone is not None and session.is_playing
        session.take_messages()
        began = time.monotonic()
        number = devices.pactl(*USB_MICROPHONE).strip()
        until(session, said(session, "UsbMicrophone is back"), "its return")
        until(session, lambda: session.microphone.route == "UsbMicrophone", "hearing the right one")
        print(f"\nmoved elsewhere: told after {told:.2f} s, heard {time.monotonic() - began:.2f} s after its return")
        assert not session.microphone.is_rerouted


BURST_SECONDS, BURST_EVERY = 0.06, 0.7


def burst_times(samples, rate):
    """When bursts begin, in seconds; one whose front is cut off by a gap is none."""
    loud = np.abs(samples) > 0.1
    before = np.cumsum(np.concatenate(([0], loud)))
    window, length = int(0.3 * rate), int(0.8 * BURST_SECONDS * rate)
    begins = [place for place in np.flatnonzero(loud) if place >= window and before[place] == before[place - window]]
    return np.array([place for place in begins if loud[place : place + length].mean() > 0.5]) / rate


def test_a_microphone_pulled_out_in_the_middle_of_a_take_leaves_silence_and_the_take_keeps_its_time(devices, session, tmp_path):
    times = np.arange(int((40 + 20 * CYCLES) * 48_000)) / 48_000
    soundfile.write(tmp_path / "bursts.wav", (0.5 * np.sin(2 * np.pi * 500 * times) * (times % BURST_EVERY < BURST_SECONDS)).astype(np.float32), 48_000)
    number = plug(devices)
    devices.pactl("suspend-source", "microphone", "1")  # so that there is nothing to move to
    playing = subprocess.Popen(["paplay", "--device=usb", str(tmp_path / "bursts.wav")], env={**os.environ, **devices.environment})
    picture = Render(torch.full((48, 64, 3), 0.5), torch.ones(48, 64))

    def going_on(condition):
        """The condition, asked once a frame while the take runs."""

        def frame():
            session.offer(picture)
            return condition()

        return frame

    def for_a_while(seconds):
        end = time.monotonic() + seconds
        until(session, going_on(lambda: time.monotonic() > end), "time passing")

    try:
        session.use_microphone("UsbMicro")
        until(session, lambda: session.microphone.route and session.now() > 0.5, "the microphone")
        for_a_while(2.0)  # a stream that has just begun states its delay wrongly
        session.start_recording(tmp_path, (64, 48), 25)
        began = time.monotonic()
        for_a_while(4.0)
        for _ in range(CYCLES):
            session.take_messages()
            pulled = time.monotonic()
            unplug(devices, number)
            until(session, going_on(said(session, "UsbMicrophone is gone")), "the message")
            told = time.monotonic() - pulled
            for_a_while(2.0)
            session.take_messages()
            back = time.monotonic()
            number = devices.pactl(*USB_MICROPHONE).strip()
            until(session, going_on(said(session, "UsbMicrophone is back")), "its return")
            heard = time.monotonic() - back
            print(f"\npulled out: told after {told:.2f} s, back {heard:.2f} s after its return")
            for_a_while(4.0)
        lasted = time.monotonic() - began
        session.stop_recording()
        until(session, lambda: session.recorder is None, "the take")
    finally:
        playing.kill()
        playing.wait()
        devices.pactl("suspend-source", "microphone", "0")
    with TakeFile(session.last_take.with_suffix(".take")) as take:
        reader = SpoolReader(take.heard)
        samples, seconds = reader.read(0, reader.count)[:, 0] / 32768, take.seconds
        reader.close()
    bursts = burst_times(samples, 48_000)
    phases = (bursts - bursts[0] + BURST_EVERY / 2) % BURST_EVERY - BURST_EVERY / 2
    print(f"take of {seconds:.2f} s, {lasted:.2f} s by the clock; bursts at {np.round(bursts, 2).tolist()}, off their time by {np.round(1000 * phases).tolist()} ms")
    assert seconds == pytest.approx(lasted, abs=0.1)
    assert len(bursts) >= 3 + 3 * CYCLES and bursts[-1] > lasted - 1.5
    assert np.median(np.abs(phases)) <= 0.04 and np.median(np.abs(phases[-3:])) <= 0.04, "the take keeps its time, to a frame"


def test_a_microphone_whose_server_hangs_is_lost_and_comes_back_with_it(devices, session):
    session.use_microphone()
    until(session, lambda: session.microphone.is_ready and session.now() > 0.1, "the microphone")
    until(session, lambda: session.microphone.route, "its name")
    for _ in range(CYCLES):
        session.take_messages()
        now, slowest, began = session.now(), 0.0, time.monotonic()
        devices.freeze()
        try:
            deadline = time.monotonic() + 20
            while not session.microphone.is_lost and time.monotonic() < deadline:
                before = time.monotonic()
                session.update()
                session.motion()
                slowest = max(slowest, time.monotonic() - before)
                time.sleep(0.01)
            told = time.monotonic() - began
            assert session.microphone.is_lost and said(session, "is gone")()
            assert session.playback.source is None and session.playback.heard is None
            assert session.now() > now, "a take needs time to go on"
            assert slowest < 0.5, "the frame loop was held up"
            ends = began + 10.0 if CYCLES > 1 else 0.0  # as long as a server may well be frozen
            until(session, lambda: time.monotonic() > ends, "the server being frozen")
        finally:
            devices.thaw()
        began = time.monotonic()
        until(session, lambda: session.microphone.is_ready, "its return", seconds=40)
        assert said(session, "is back")() and session.microphone is not None
        print(f"\nfrozen server: told after {told:.2f} s, longest frame {1000 * slowest:.0f} ms, back {time.monotonic() - began:.2f} s after it")
        until(session, lambda: session.now() > 0.1, "hearing again")


def test_an_unknown_microphone_is_refused_with_the_names_that_there_are(devices, session):
    session.use_microphone("no such thing")
    until(session, said(session, "there are:"), "the message")
    assert session.microphone is None and not session.is_playing


def test_an_output_is_chosen_by_name_and_plays_there(devices, tiny_avatar, tmp_path):
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(16_000 * 20) / 16_000)
    soundfile.write(tmp_path / "tone.wav", tone.astype(np.float32), 16_000)
    devices.pactl(*USB)
    session = Session()
    try:
        session.use_avatar(tiny_avatar)
        session.open_sound(tmp_path / "tone.wav")
        until(session, lambda: session.clock.is_playing and session.now() > 0.2, "playing")
        session.playback.output.choose("UsbCable")
        until(session, lambda: session.playback.output.device_name == "UsbCable" and not session.silent_because, "the other output")
        before = session.now()
        until(session, lambda: session.now() > before + 0.3, "time going on")
        command = ["parec", "--device=usb.monitor", "--rate=16000", "--channels=1", "--format=s16le"]
        with open(tmp_path / "heard.raw", "wb") as heard:
            recorder = subprocess.Popen(command, stdout=heard)
            until(session, lambda: session.now() > before + 1.5, "time going on")
            recorder.terminate()
            recorder.wait(5)
        samples = np.fromfile(tmp_path / "heard.raw", np.int16) / 32768
        assert np.abs(samples).max() > 0.2
    finally:
        session.close()


def test_sound_comes_back_when_the_server_does(devices, tiny_avatar, tmp_path):
    soundfile.write(tmp_path / "quiet.wav", np.zeros(16_000 * 60, np.float32), 16_000)
    session = Session()
    try:
        session.use_avatar(tiny_avatar)
        session.open_sound(tmp_path / "quiet.wav")
        until(session, lambda: session.clock.is_playing and session.now() > 0.3, "playing")
        devices.freeze()
        until(session, lambda: session.silent_because, "the message")
        silent_at = session.now()
        devices.thaw()
        until(session, lambda: not session.silent_because, "sound", seconds=40)
        assert said(session, "Sound comes from")()
        assert session.now() > silent_at, "the clock must not fall back"
        now = session.now()
        until(session, lambda: session.now() > now + 0.3, "time going on")
    finally:
        devices.thaw()
        session.close()
