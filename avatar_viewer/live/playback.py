"""The session's source of sound and its time: a file that plays, scrubs and loops, or a microphone; one clock for both.

Devices and decoders are processes (`audio_io`, `decoding`); nothing here waits for them. Belongs to the main thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..errors import InputError
from .audio_io import Microphone, Player
from .clock import Clock, WallClock
from .decoding import Sound
from .messages import Say
from .spool import SpoolFormat

_PREPARE_SECONDS = 1.5  # sound starts then, motion or not


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
        self.sound: Sound | None = None
        self.microphone: Microphone | None = None
        self.silent_because = "" if has_sound_output else "sound output is switched off"
        self.wants_to_play = False
        self._preparing_since = 0.0
        self._was_decoding = False
        self._opening: Sound | None = None
        self._plays_when_open = False
        self._clock: Clock = clock or WallClock()
        self._player: Player | None = None
        if has_sound_output and clock is None:
            self._player = self._clock = Player(output_device)

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
        self.microphone = Microphone(device, delay_seconds=delay_seconds)
        self._begin_speech()

    def stop_microphone(self) -> None:
        if self.microphone is not None:
            self._close_source()

    @property
    def is_opening(self) -> bool:
        """A file is being tried."""
        return self._opening is not None

    @property
    def source(self) -> Source | None:
        return self.microphone or self.sound

    @property
    def heard(self) -> SpoolFormat | None:
        """Where the sound of this moment is; None while there is none."""
        source = self.source
        return source.playback if source is not None and (self.microphone is not None or self._clock.is_playing) else None

    @property
    def seconds(self) -> float:
        """The sound's length."""
        return self.sound.seconds if self.sound else 0.0

    # ---- time ------------------------------------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        return self.microphone or self._clock

    def now(self) -> float:
        return self.clock.now()

    @property
    def is_playing(self) -> bool:
        return self.wants_to_play or self.microphone is not None

    @property
    def is_moving(self) -> bool:
        """Time goes on at this moment."""
        return self._clock.is_playing or self.microphone is not None

    @property
    def is_at_end(self) -> bool:
        return self.sound is not None and self.sound.is_complete and self.now() >= self.seconds - 0.05

    def play(self) -> None:
        """As soon as the face has motion, or `_PREPARE_SECONDS` have passed."""
        self.wants_to_play = True
        self.prepare()

    def prepare(self) -> None:
        """Give the motion time to be there before sound starts."""
        self._preparing_since = time.monotonic()

    def pause(self) -> None:
        self.wants_to_play = False
        self._clock.pause()

    def seek(self, seconds: float) -> None:
        """Go there; while playing, sound resumes as soon as the face has motion for it."""
        if self.sound is None:
            return
        if self._clock.is_playing:
            self._clock.pause()
        self._clock.seek(min(max(0.0, seconds), max(0.0, self.seconds - 0.02)))
        self.prepare()
        self._begin_speech()

    # ---- once a frame ----------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Take in what devices and decoders have done."""
        self._update_output()
        self._update_opening()
        if self.microphone is not None:
            self._update_microphone()
        elif self.sound is not None:
            self._update_sound(self.sound)

    def start_clock(self, has_motion: Callable[[], bool]) -> None:
        """Let the sound start if it is wanted and the face is ready for it."""
        if not self.wants_to_play or self._clock.is_playing or self.sound is None:
            return
        if has_motion() or time.monotonic() - self._preparing_since > _PREPARE_SECONDS:
            self._clock.play()

    def _update_output(self) -> None:
        player = self._player
        if player is None:
            return
        player.poll()
        if player.failure is None:
            return
        position, wanted = player.now(), self.wants_to_play
        self._player = None
        self._defer(player.close)
        self.silent_because = player.failure
        self._say(f"No sound output ({player.failure}): playing silently")
        self._clock = WallClock()
        self._clock.seek(position)
        if wanted and self.microphone is None:
            self._clock.play()

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
        self.pause()
        self._close_source()
        self.sound = opening
        self._was_decoding = True
        if self._player is not None:
            self._player.load(opening.playback)
        self._clock.seek(0.0)
        self._begin_speech()
        if self._plays_when_open:
            self.play()

    def _update_microphone(self) -> None:
        microphone = self.microphone
        assert microphone is not None
        microphone.poll()
        if microphone.failure is not None:
            self._say(f"Microphone: {microphone.failure}", is_error=True)
            self.stop_microphone()
            self._begin_speech()

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
                if self._player is not None:
                    self._player.complete()
                for note in sound.notes:
                    self._say(f"{sound.name}: {note}")
        ended = self._player.has_ended if self._player else self._clock.now() >= self.seconds and sound.is_complete
        if self.wants_to_play and ended:
            if self.is_looping:
                self.seek(0.0)
            else:
                self.pause()
                self._clock.seek(self.seconds)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _close_source(self) -> None:
        """Let go of the source; its process may take a moment to end, which is not for the frame loop to wait for."""
        for source in (self.microphone, self.sound):
            if source is not None:
                self._defer(source.close)
        self.microphone = self.sound = None

    def close(self) -> None:
        self._close_source()
        for part in (self._opening, self._player):
            if part is not None:
                self._defer(part.close)
