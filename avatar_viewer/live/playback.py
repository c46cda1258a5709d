"""The session's source of sound and its time: a file that plays, scrubs and loops, or a microphone; one clock for both.

What comes and goes with devices is `output.py`'s and `listening.py`'s; decoders are processes. Nothing here waits. Belongs to
the main thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..errors import InputError
from .clock import Clock
from .decoding import Sound
from .device_list import DeviceWatch, SoundDevices
from .listening import Listening
from .messages import Say
from .output import Output
from .spool import SpoolFormat
from .voice_chain import VoiceSettings

_PREPARE_SECONDS = 1.5  # sound starts then, motion or not
MIN_RATE, MAX_RATE = 0.25, 2.0
_MONITOR_LEAD_SECONDS = 0.1  # from asking for sound to hearing it, at first guess
_MONITOR_ERROR_SECONDS = 0.025  # beyond it the monitored voice is put right
_MONITOR_CHECK_SECONDS = 1.0


class Source(Protocol):
    """What both a file and a microphone are to the session."""

    speech: SpoolFormat
    playback: SpoolFormat

    def close(self) -> None: ...


class Playback:
    """What is heard, and when.

    `begin_speech` is called whenever the speech path has to start anew: another source, another place in it.
    """

    def __init__(
        self,
        *,
        say: Say,
        defer: Callable[[Callable[[], None]], None],  # has something done that may take a moment
        begin_speech: Callable[[], None],
        has_sound_output: bool = True,
        output_device: str | None = None,
        clock: Clock | None = None,  # tests give a stepped one
    ) -> None:
        self._say, self._defer, self._begin_speech = say, defer, begin_speech
        self.is_looping = False
        self.rate = 1.0
        self.sound: Sound | None = None
        self.microphone: Listening | None = None
        self.voice = VoiceSettings()
        self.is_monitoring = False
        self.wants_to_play = False
        self._preparing_since = 0.0
        self._was_decoding = False
        self._opening: Sound | None = None
        self._plays_when_open = False
        self._monitor_lead = _MONITOR_LEAD_SECONDS
        self._monitor_checked_at = 0.0
        self.output = Output(say=say, defer=defer, device=output_device, is_wanted=has_sound_output, clock=clock)
        self._watch: DeviceWatch | None = None

    # ---- source ----------------------------------------------------------------------------------------------------

    def open_sound(self, path: str | Path, *, plays: bool = True) -> None:
        """Begin to decode a file; it becomes the source once it proves to be sound. `InputError` where there is no file."""
        opening = Sound(path)
        if self._opening is not None:
            self._defer(self._opening.close)
        self._opening = opening
        self._plays_when_open = plays

    def use_microphone(self, device: str | None, delay_seconds: float) -> None:
        """Listen; the picture follows the voice by a constant delay."""
        self.pause()
        self._close_source()
        self.output.set_rate(1.0)
        self.microphone = Listening(
            device, delay_seconds=delay_seconds, settings=self.voice, say=self._say, defer=self._defer, on_change=self._change_voice
        )
        self._watch_devices()
        self._begin_speech()

    def stop_microphone(self) -> None:
        if self.microphone is not None:
            self.output.pause()
            self._close_source()
            self.output.set_rate(self.rate)
            self.output.seek(0.0)

    def set_voice(self, settings: VoiceSettings) -> None:
        """Gain and gate of the microphone, now and later."""
        self.voice = settings
        if self.microphone is not None:
            self.microphone.apply(settings)

    def set_monitoring(self, is_monitoring: bool) -> None:
        """Let the microphone's voice be heard, in step with the picture."""
        self.is_monitoring = is_monitoring
        if self.microphone is not None:
            self.output.pause()
            self._change_monitor()

    # ---- devices ---------------------------------------------------------------------------------------------------

    @property
    def devices(self) -> SoundDevices:
        """What the device watch knows; nothing before `refresh_devices`."""
        return self._watch.found if self._watch else SoundDevices()

    @property
    def is_asking_for_devices(self) -> bool:
        return self._watch is not None and self._watch.is_asking

    def refresh_devices(self) -> None:
        """Look again which devices there are."""
        if self._watch is not None:
            self._watch.refresh()
        self._watch_devices()

    def _watch_devices(self) -> None:
        if self._watch is None:
            self._watch = DeviceWatch()

    @property
    def is_opening(self) -> bool:
        """A file is being tried."""
        return self._opening is not None

    @property
    def source(self) -> Source | None:
        """None also while the microphone is gone."""
        if self.microphone is not None:
            return None if self.microphone.is_lost else self.microphone
        return self.sound

    @property
    def heard(self) -> SpoolFormat | None:
        """Where the sound of this moment is; None while there is none, or a microphone has not begun to tell the time."""
        source = self.source
        if source is None or not self.is_moving or (self.microphone is not None and not self.microphone.is_running):
            return None
        return source.playback

    @property
    def seconds(self) -> float:
        """The sound's length."""
        return self.sound.seconds if self.sound else 0.0

    # ---- time ------------------------------------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        return self.microphone or self.output.clock

    def now(self) -> float:
        return self.clock.now()

    @property
    def is_playing(self) -> bool:
        return self.wants_to_play or self.microphone is not None

    @property
    def is_moving(self) -> bool:
        """Time goes on at this moment."""
        return self.output.is_playing or self.microphone is not None

    @property
    def is_at_end(self) -> bool:
        return self.sound is not None and self.sound.is_complete and self.now() >= self.seconds - 0.05

    def play(self) -> None:
        """As soon as the face has motion, or `_PREPARE_SECONDS` have passed."""
        assert self.microphone is None
        self.wants_to_play = True
        self.prepare()

    def prepare(self) -> None:
        """Give the motion time to be there before sound starts."""
        self._preparing_since = time.monotonic()

    def pause(self) -> None:
        self.wants_to_play = False
        if self.microphone is None:
            self.output.pause()

    def set_rate(self, rate: float) -> None:
        """How fast a file plays, like a tape; the face is the same at any speed, and so is a take: it runs at the sound's own speed."""
        self.rate = min(max(rate, MIN_RATE), MAX_RATE)
        if self.microphone is None:
            self.output.set_rate(self.rate)

    def seek(self, seconds: float) -> None:
        """Go there; while playing, sound resumes as soon as the face has motion for it."""
        if self.sound is None:
            return
        if self.output.is_playing:
            self.output.pause()
        self.output.seek(min(max(0.0, seconds), max(0.0, self.seconds - 0.02)))
        self.prepare()
        self._begin_speech()

    # ---- once a frame ----------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Take in what devices and decoders have done."""
        is_new = self._watch is not None and self._watch.poll()
        self.output.poll(self.devices, is_new=is_new)
        self._update_opening()
        if self.microphone is not None:
            self._update_microphone(self.microphone, is_new)
        elif self.sound is not None:
            self._update_sound(self.sound)

    def start_clock(self, has_motion: Callable[[], bool]) -> None:
        """Let the sound start if it is wanted and the face is ready for it."""
        if not self.wants_to_play or self.output.is_playing or self.sound is None:
            return
        if has_motion() or time.monotonic() - self._preparing_since > _PREPARE_SECONDS:
            self.output.play()

    def _update_opening(self) -> None:
        opening = self._opening
        if opening is None:
            return
        try:
            opening.poll()
        except InputError as error:
            self._opening = None
            self._say(str(error), is_error=True)
            return
        if not opening.is_ready:
            return
        self._opening = None
        self.stop_microphone()
        self.pause()
        self._close_source()
        self.sound = opening
        self._was_decoding = True
        self.output.load(opening.playback)
        self._begin_speech()
        if self._plays_when_open:
            self.play()

    def _update_microphone(self, microphone: Listening, is_new: bool) -> None:
        was_lost = microphone.is_lost
        microphone.poll(self.devices, is_new=is_new)
        if microphone.is_lost and not was_lost:
            self.refresh_devices()  # whether it was pulled out, or its server hangs
        if microphone.is_over:
            self.stop_microphone()
            self._begin_speech()
        elif self.is_monitoring and microphone.is_ready and time.monotonic() - self._monitor_checked_at > _MONITOR_CHECK_SECONDS:
            self._correct_monitor(microphone)

    def _change_voice(self) -> None:
        """The microphone's sound is another one, or none."""
        self._change_monitor()
        self._begin_speech()

    def _change_monitor(self) -> None:
        microphone = self.microphone
        self.output.pause()
        if microphone is not None and self.is_monitoring and microphone.is_ready:
            self.output.load(microphone.playback)
            self.output.seek(microphone.now() + self._monitor_lead)
            self.output.play()
            self._monitor_checked_at = time.monotonic()

    def _correct_monitor(self, microphone: Listening) -> None:
        """Two devices, two clocks: what drifts is put right, with a fade."""
        self._monitor_checked_at = time.monotonic()
        error = self.output.now() - microphone.now()
        if abs(error) > _MONITOR_ERROR_SECONDS:
            self._monitor_lead = min(max(self._monitor_lead - error, 0.0), 0.5)
            self.output.seek(microphone.now() + self._monitor_lead)

    def _update_sound(self, sound: Sound) -> None:
        if self._was_decoding:
            try:
                sound.poll()
            except InputError as error:
                self._say(str(error), is_error=True)
                self.pause()
                self.sound, self._was_decoding = None, False
                return
            if sound.is_complete:
                self._was_decoding = False
                self.output.complete()
                for note in sound.notes:
                    self._say(f"{sound.name}: {note}")
        if self.wants_to_play and self.output.has_ended(self.seconds):
            if self.is_looping:
                self.seek(0.0)
            else:
                self.pause()
                self.output.seek(self.seconds)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _close_source(self) -> None:
        """Let go of the source; its process may take a moment to end, which is not for the frame loop to wait for."""
        for source in (self.microphone, self.sound):
            if source is not None:
                self._defer(source.close)
        self.microphone = self.sound = None

    def quit(self) -> None:
        """Tell the processes of devices that the end is near; `close` waits for them."""
        self.output.quit()
        if self.microphone is not None:
            self.microphone.quit()

    def close(self) -> None:
        self._close_source()
        self.output.close()
        for part in (self._opening, self._watch):
            if part is not None:
                self._defer(part.close)
