"""Sound out and a held microphone through every fault, with devices that the test plays; no sound server."""

import pytest

from avatar_viewer.live.clock import WallClock
from avatar_viewer.live.device_list import SoundDevice, SoundDevices
from avatar_viewer.live.listening import Listening
from avatar_viewer.live.output import Output
from avatar_viewer.live.voice_chain import VoiceSettings

NOTHING = SoundDevices()


class Time:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def time_():
    return Time()


class FakePlayer(WallClock):
    """A player whose fate the test decides; it keeps time like a wall clock."""

    process_id = 77
    underflows = 0
    has_ended = False

    def __init__(self, device, time_):
        super().__init__(time_)
        self.device, self.device_name = device, device or "Speaker"
        self.is_ready, self.failure, self.is_closed = False, None, False
        self.loaded = []

    def poll(self):
        pass

    def load(self, spool):
        self.loaded.append(spool)
        self.seek(0.0)

    def complete(self):
        self.loaded.append("complete")

    def close(self):
        self.is_closed = True


class Devices:
    """Opens fakes and remembers them; runs what is deferred at once."""

    def __init__(self, time_, kind):
        self.made, self.said, self._time, self._kind = [], [], time_, kind

    def open(self, device=None, **options):
        self.made.append(self._kind(device, self._time, **options))
        return self.made[-1]

    def say(self, text, *, is_error=False):
        self.said.append(text)

    @property
    def newest(self):
        return self.made[-1]


@pytest.fixture
def speakers(time_):
    return Devices(time_, FakePlayer)


@pytest.fixture
def output(speakers, time_):
    output = Output(say=speakers.say, defer=lambda errand: errand(), open_player=speakers.open, monotonic=time_)
    speakers.newest.is_ready = True
    output.load("spool")
    output.complete()
    output.play()
    return output


def poll(output, found=NOTHING, is_new=False):
    output.poll(found, is_new=is_new)


def test_a_lost_speaker_is_silence_in_which_time_goes_on_and_it_is_taken_up_again(output, speakers, time_):
    time_.now += 5.0
    speakers.newest.failure = "the sound device is gone"
    poll(output)
    assert output.silent_because and output.is_playing and speakers.made[0].is_closed
    assert "playing silently" in speakers.said[0]
    time_.now += 1.0
    assert output.now() == pytest.approx(6.0, abs=0.5)
    poll(output)
    assert len(speakers.made) == 1, "too early to try"
    time_.now += 1.5
    poll(output)
    assert len(speakers.made) == 2
    before = output.now()
    speakers.newest.is_ready = True
    poll(output)
    assert not output.silent_because and output.is_playing
    assert speakers.newest.loaded == ["spool", "complete"] and output.now() >= before


def test_tries_grow_rarer_while_there_is_no_device(output, speakers, time_):
    speakers.newest.failure = "gone"
    poll(output)
    for _ in range(600):  # a minute
        time_.now += 0.1
        poll(output)
        if speakers.newest.failure is None:
            speakers.newest.failure = "still gone"
    assert 3 <= len(speakers.made) <= 8
    assert len(speakers.said) == 2, "each reason is said once"


def test_a_new_device_is_tried_at_once(output, speakers, time_):
    speakers.newest.failure = "gone"
    poll(output)
    poll(output, SoundDevices((SoundDevice("Headphones", 0, 2),)), is_new=True)
    assert len(speakers.made) == 2


def test_a_machine_that_never_had_a_speaker_is_not_asked_again_and_again(speakers, time_):
    output = Output(say=speakers.say, defer=lambda errand: errand(), open_player=speakers.open, monotonic=time_)
    speakers.newest.failure = "Error querying device -1"
    for _ in range(1000):
        time_.now += 0.1
        poll(output)
    assert len(speakers.made) == 1 and len(speakers.said) == 1


def test_a_chosen_speaker_goes_on_where_the_other_was_and_at_its_speed(output, speakers, time_):
    output.set_rate(0.5)
    time_.now += 4.0
    assert output.now() == pytest.approx(2.0)
    output.choose("Headphones")
    speakers.newest.is_ready = True
    poll(output)
    assert speakers.newest.device == "Headphones" and output.device_name == "Headphones"
    assert output.now() == pytest.approx(2.0, abs=0.1)
    time_.now += 2.0
    assert output.now() == pytest.approx(3.0, abs=0.1)


class FakeMicrophone:
    speech = playback = "spool"
    process_id = 78
    level, overflows, capture_seconds, is_open, is_quiet = 0.1, 0, 0.01, True, False
    lost_seconds, is_running = 0.0, True

    def __init__(self, device, time_, *, delay_seconds):
        self.device, self.device_name, self.delay_seconds = device, device or "Usb", delay_seconds
        self.is_ready, self.failure, self.is_closed, self.peak = False, None, False, 0.2
        self._time, self._began = time_, time_.now
        self.settings = []

    def poll(self):
        pass

    def apply(self, settings):
        self.settings.append(settings)

    def now(self):
        return self._time.now - self._began

    def close(self):
        self.is_closed = True


@pytest.fixture
def microphones(time_):
    return Devices(time_, FakeMicrophone)


@pytest.fixture
def held(microphones, time_):
    changes = []
    held = Listening(
        None, delay_seconds=0.4, settings=VoiceSettings(gain_db=6.0), say=microphones.say, defer=lambda errand: errand(),
        on_change=lambda: changes.append(held.is_lost), open_microphone=microphones.open, monotonic=time_,
    )  # fmt: skip
    held.changes = changes
    microphones.newest.is_ready = True
    poll(held)
    return held


USB = SoundDevices((SoundDevice("Usb", 1, 0), SoundDevice("Laptop", 1, 0)))
LAPTOP = SoundDevices((SoundDevice("Laptop", 1, 0),))


def test_a_lost_microphone_is_waited_for_by_its_name(held, microphones, time_):
    time_.now += 3.0
    microphones.newest.failure = "the device is gone"
    poll(held, USB)
    assert held.is_lost and held.state and not held.is_over and "Usb is gone" in microphones.said[0]
    at = held.now()
    for _ in range(300):
        time_.now += 0.1
        poll(held, LAPTOP)
    assert len(microphones.made) == 1, "another device is not taken in its place"
    assert held.now() == pytest.approx(at + 30.0)
    poll(held, USB, is_new=True)
    assert len(microphones.made) == 2 and microphones.newest.device == "Usb"
    assert microphones.newest.settings == [VoiceSettings(gain_db=6.0)]
    microphones.newest.is_ready = True
    poll(held, USB)
    assert not held.is_lost and "Usb is back" in microphones.said[-1]
    assert held.changes == [False, True, False]


def test_a_microphone_that_the_system_moves_is_said_and_taken_back(held, microphones):
    poll(held, SoundDevices(USB.devices, listening={78: "Usb"}))
    assert not held.is_rerouted
    moved = SoundDevices(LAPTOP.devices, listening={78: "Laptop"})
    poll(held, moved)
    assert held.is_rerouted and "through Laptop" in microphones.said[-1]
    poll(held, moved)
    assert len(microphones.said) == 1, "said once"
    poll(held, SoundDevices(USB.devices, listening={78: "Laptop"}))
    assert len(microphones.made) == 2 and microphones.newest.device == "Usb"
    microphones.newest.is_ready = True
    poll(held, SoundDevices(USB.devices, listening={78: "Usb"}))
    assert not held.is_rerouted and not held.is_lost


def test_a_microphone_that_never_worked_is_let_go(microphones, time_):
    held = Listening(
        "none", delay_seconds=0.4, settings=VoiceSettings(), say=microphones.say, defer=lambda errand: errand(),
        on_change=lambda: None, open_microphone=microphones.open, monotonic=time_,
    )  # fmt: skip
    microphones.newest.failure = "no input device is called 'none'"
    poll(held)
    assert held.is_over and "'none'" in microphones.said[0]


def test_a_muted_microphone_is_told_from_a_quiet_one(held, microphones, time_):
    microphones.newest.peak = 0.0
    time_.now += 2.0
    poll(held)
    assert held.state == ""
    time_.now += 2.0
    poll(held)
    assert "no signal" in held.state
    microphones.newest.peak = 0.01
    poll(held)
    assert held.state == ""


def test_a_microphone_that_starts_too_slowly_is_tried_again_but_not_for_ever(microphones, time_):
    held = Listening(
        None, delay_seconds=0.4, settings=VoiceSettings(), say=microphones.say, defer=lambda errand: errand(),
        on_change=lambda: None, open_microphone=microphones.open, monotonic=time_,
    )  # fmt: skip
    for _ in range(10):
        microphones.newest.failure = "Error starting stream: Wait timed out [PaErrorCode -9987]"
        if not held.is_over:
            poll(held)
    assert held.is_over and len(microphones.made) == 3 and len(microphones.said) == 1
