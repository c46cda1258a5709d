"""Devices that come, go, move and hang, with a private sound server: the session says so, goes on, and takes them up again."""

import subprocess
import time

import numpy as np
import pytest

from avatar_viewer.live.device_list import DeviceWatch
from avatar_viewer.live.session import Session

pytestmark = pytest.mark.sound

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
    began = time.monotonic()
    unplug(devices, number)
    until(session, said(session, "UsbMicrophone is gone"), "the message")
    assert time.monotonic() - began < 10
    assert session.microphone is not None and session.is_playing
    session.take_messages()
    devices.pactl(*USB_MICROPHONE)
    until(session, said(session, "UsbMicrophone is back"), "its return")
    until(session, lambda: session.microphone.route == "UsbMicrophone", "hearing the right one")
    assert not session.microphone.is_rerouted


def test_a_microphone_whose_server_hangs_is_lost_and_comes_back_with_it(devices, session):
    session.use_microphone()
    until(session, lambda: session.microphone.is_ready and session.now() > 0.1, "the microphone")
    until(session, lambda: session.microphone.route, "its name")
    now, slowest = session.now(), 0.0
    devices.freeze()
    try:
        deadline = time.monotonic() + 20
        while not session.microphone.is_lost and time.monotonic() < deadline:
            before = time.monotonic()
            session.update()
            session.motion()
            slowest = max(slowest, time.monotonic() - before)
            time.sleep(0.01)
        assert session.microphone.is_lost and said(session, "is gone")()
        assert session.playback.source is None and session.playback.heard is None
        assert session.now() > now, "a take needs time to go on"
        assert slowest < 0.5, "the frame loop was held up"
    finally:
        devices.thaw()
    until(session, lambda: session.microphone.is_ready, "its return", seconds=40)
    assert said(session, "is back")() and session.microphone is not None


def test_an_unknown_microphone_is_refused_with_the_names_that_there_are(devices, session):
    session.use_microphone("no such thing")
    until(session, said(session, "there are:"), "the message")
    assert session.microphone is None and not session.is_playing


def test_an_output_is_chosen_by_name_and_plays_there(devices, tiny_avatar, tmp_path):
    import soundfile

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
    import soundfile

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
