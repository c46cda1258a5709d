"""A microphone held by name through everything that happens to devices: pulled out, put back, moved elsewhere by the server.

While it is lost there is silence and time goes on, so a take keeps its length; it is opened again by its name when it is
back. The file of a take shows nothing of that; the messages do.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .audio_io import Microphone
from .device_list import SoundDevices
from .messages import Say
from .spool import SpoolFormat
from .voice_chain import VoiceSettings

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 3.0, 20.0
_START_TRIES = 3  # a sound server on a busy machine may not start a stream within PortAudio's patience
_SILENT_LEVEL, _SILENT_SECONDS = 1e-4, 3.0  # -80 dB: a muted microphone, or the wrong one; a quiet room is louder


class Listening:
    """A live source and its clock, which runs `delay_seconds` behind the air. Belongs to the main thread; nothing here waits."""

    def __init__(
        self,
        device: str | None,
        *,
        delay_seconds: float,
        settings: VoiceSettings,
        say: Say,
        defer: Callable[[Callable[[], None]], None],  # has something done that may take a moment
        on_change: Callable[[], None],  # the sound is another one from now on, or silence
        open_microphone: Callable[..., Microphone] = Microphone,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._defer, self._on_change, self._open_microphone = say, defer, on_change, open_microphone
        self._monotonic = monotonic
        self.device = device
        self.delay_seconds = delay_seconds
        self.is_playing = True
        self.is_over = False  # it never worked: the caller lets it go
        self.is_lost = False
        self.name = ""  # of the device that was opened
        self.route = ""  # the device that is really heard, where that is known
        self._settings = settings
        self._was_ready = False
        self._tries_left = _START_TRIES
        self._heard_at = self._monotonic()  # anything at all
        self._lost_told = 0.0  # seconds of sound
        self._lost_at = (0.0, 0.0)  # the clock, and the monotonic one, when sound stopped
        self._is_trying = False  # to get a lost one back
        self._retry_at = 0.0
        self._wait_seconds = _FIRST_WAIT_SECONDS
        self._open(device)

    def _open(self, device: str | None) -> None:
        self._microphone = self._open_microphone(device, delay_seconds=self.delay_seconds)
        self._microphone.apply(self._settings)
        self.route = ""

    # ---- what it is to others --------------------------------------------------------------------------------------

    @property
    def speech(self) -> SpoolFormat:
        return self._microphone.speech

    @property
    def playback(self) -> SpoolFormat:
        return self._microphone.playback

    @property
    def is_ready(self) -> bool:
        return self._microphone.is_ready and not self.is_lost

    @property
    def is_running(self) -> bool:
        """It tells the time by what it hears, which a microphone that has just been opened does not yet."""
        return self.is_ready and self._microphone.is_running

    @property
    def level(self) -> float:
        """RMS, 0..1, after gain."""
        return 0.0 if self.is_lost else self._microphone.level

    @property
    def peak(self) -> float:
        return 0.0 if self.is_lost else self._microphone.peak

    @property
    def is_open(self) -> bool:
        """The noise gate lets the voice through."""
        return self._microphone.is_open

    @property
    def overflows(self) -> int:
        return self._microphone.overflows

    @property
    def lost_seconds(self) -> float:
        """Of sound that never arrived, since the device was opened."""
        return self._microphone.lost_seconds

    @property
    def capture_seconds(self) -> float:
        return self._microphone.capture_seconds

    @property
    def state(self) -> str:
        """A word for the window; empty while all is well."""
        if self.is_lost:
            return "gone, waiting for it"
        if not self._microphone.is_ready:
            return "arming..."
        if self._microphone.is_quiet:
            return "no sound arrives"
        if self._monotonic() - self._heard_at > _SILENT_SECONDS:
            return "no signal: muted?"
        return ""

    @property
    def is_rerouted(self) -> bool:
        """The system hears through another device than the one that was opened."""
        return bool(self.route and self.name and self.route != self.name)

    def apply(self, settings: VoiceSettings) -> None:
        """Gain and gate from now on."""
        self._settings = settings
        self._microphone.apply(settings)

    def set_delay(self, seconds: float) -> None:
        """Another distance from the air; time jumps ahead, or stands still until it is reached."""
        self.delay_seconds = self._microphone.delay_seconds = seconds

    def now(self) -> float:
        if self.is_lost:
            seconds, monotonic = self._lost_at
            return seconds + self._monotonic() - monotonic
        return self._microphone.now()

    def play(self) -> None:
        pass

    def pause(self) -> None:
        pass

    def seek(self, seconds: float) -> None:
        pass

    def set_rate(self, rate: float) -> None:
        pass

    # ---- devices ---------------------------------------------------------------------------------------------------

    def poll(self, found: SoundDevices, *, is_new: bool) -> None:
        """Once a frame; `found` is what the device watch knows."""
        if self.is_lost and not self._is_trying:
            is_there = self.name in found.inputs
            is_gone = bool(found.devices) and not is_there
            waits_until = self._retry_at if not found.reason else self._lost_at[1] + _LONGEST_WAIT_SECONDS  # a server that hangs
            if is_gone or not (self._monotonic() >= waits_until or (is_there and is_new)):
                return
            self._is_trying = True
            self._open(self.name)
        microphone = self._microphone
        microphone.poll()
        if microphone.failure is not None:
            self._lose(microphone.failure)
        elif microphone.is_ready:
            if self.is_lost or not self._was_ready:
                self._begin()
            if microphone.peak > _SILENT_LEVEL:
                self._heard_at = self._monotonic()
            self._tell_losses(microphone.lost_seconds)
            self._follow_route(found)

    def _tell_losses(self, seconds: float) -> None:
        if seconds > self._lost_told:
            self._say(f"Microphone: {seconds - self._lost_told:.1f} s of sound did not arrive; there is silence in its place", is_error=True)
        self._lost_told = seconds

    def _begin(self) -> None:
        if self.is_lost:
            self._say(f"Microphone: {self._microphone.device_name} is back")
        self._was_ready, self.is_lost, self._is_trying = True, False, False
        self._wait_seconds = _FIRST_WAIT_SECONDS
        self.name = self._microphone.device_name
        self._heard_at = self._monotonic()
        self._on_change()

    def _lose(self, reason: str) -> None:
        if not self._was_ready:
            self._tries_left -= 1
            if "timed out" in reason and self._tries_left:
                self._defer(self._microphone.close)
                self._open(self.device)
                return
            self._say(f"Microphone: {reason}", is_error=True)
            self.is_over = True
            return
        if self.is_lost:
            self._wait_seconds = min(2.0 * self._wait_seconds, _LONGEST_WAIT_SECONDS)
        else:
            self._fall_silent()
            self._say(f"Microphone: {self.name} is gone ({reason}); it is taken up again when it is back, or choose another", is_error=True)
        self._is_trying = False
        self._retry_at = self._monotonic() + self._wait_seconds
        self._defer(self._microphone.close)

    def _fall_silent(self) -> None:
        self._lost_at = (self.now(), self._monotonic())
        self.is_lost = True
        self._on_change()

    def _follow_route(self, found: SoundDevices) -> None:
        route = found.listening.get(self._microphone.process_id, "")
        if route and route != self.route:
            self.route = route
            if self.is_rerouted:
                text = f"Microphone: {self.name} is gone and the system now listens through {route}; choose another if that is wrong"
                self._say(text, is_error=True)
        elif self.is_rerouted and self.name in found.inputs:
            self._fall_silent()
            self._defer(self._microphone.close)
            self._is_trying = True
            self._open(self.name)

    def quit(self) -> None:
        """`close` is about to come."""
        self._microphone.quit()

    def close(self) -> None:
        self._microphone.close()
