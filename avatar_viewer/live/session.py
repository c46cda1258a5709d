"""One live session: an avatar, a source of sound, a clock, edits, and perhaps a take being recorded.

The frame loop calls `update`, asks for `motion` and `edit`, and hands the picture to `offer`. Nothing here waits: what
takes long happens in threads built here and in the processes of `audio_io`, `decoding` and `recorder`. What goes wrong
becomes a `Message`; the session keeps what it had.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..avatar.animation import Animator
from ..avatar.modulation import EditTrack
from ..avatar.speech_motion import SpeechMotion
from ..errors import InputError
from ..types import AUEdit, MotionFrame
from .audio_io import Microphone, Player
from .clock import Clock, WallClock
from .decoding import PLAYBACK_RATE, Sound
from .handoff import Failure, FirstFailure, Latest, MotionTimeline
from .recorder import Recorder, RecorderError, free_take_path
from .speech_driver import SpeechDriver, SpeechJob
from .spool import SpoolFormat, SpoolReader

if TYPE_CHECKING:
    from ..avatar.bundle import Avatar
    from ..networks.text_to_au import PromptReading
    from ..types import Render

_PREPARE_SECONDS = 1.5  # sound starts then, motion or not
_MICROPHONE_COMPUTE_SECONDS = 0.12  # allowed for capture, networks and jitter, beyond hop and look-ahead
_LOW_DISK_BYTES = 200 << 20


@dataclass(frozen=True)
class Message:
    """A line for the artist."""

    text: str
    is_error: bool = False


class _Source(Protocol):
    """What both a file and a microphone are to the session."""

    speech: SpoolFormat
    playback: SpoolFormat

    def close(self) -> None: ...


class Session:
    """Everything that is alive while a window is open, owned by the main thread."""

    def __init__(
        self,
        *,
        has_sound_output: bool = True,
        output_device: str | None = None,
        seed: int = 0,
        blinks: bool = True,
        clock: Clock | None = None,  # tests give a stepped one
        make_motion: Callable[[Avatar, EditTrack], SpeechMotion] | None = None,
    ) -> None:
        self.avatar: Avatar | None = None
        self.animator: Animator | None = None
        self.edits = EditTrack()
        self.timeline = MotionTimeline(1)
        self.messages: list[Message] = []
        self.reading: PromptReading | None = None  # of the newest prompt that has been read
        self.prompt = ""
        self.is_looping = False
        self.recorder: Recorder | None = None
        self.last_take: Path | None = None
        self.sound: Sound | None = None
        self.microphone: Microphone | None = None
        self.silent_because = "" if has_sound_output else "sound output is switched off"
        self._seed, self._blinks = seed, blinks
        self._make_motion = make_motion or self._new_motion
        self._motion: SpeechMotion | None = None
        self._edit = AUEdit()
        self._wants_to_play = False
        self._preparing_since = 0.0
        self._was_decoding = False
        self._opening: Sound | None = None
        self._plays_when_open = False
        self._failure = FirstFailure()
        self._driver: SpeechDriver | None = None
        self._driver_thread: threading.Thread | None = None
        self._clock: Clock = clock or WallClock()
        self._player: Player | None = None
        if has_sound_output and clock is None:
            self._player = self._clock = Player(output_device)
        self._recording: _RecordingTime | None = None
        self._disk_checked_at = 0.0
        self._errands: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._loaded: Latest[tuple[Avatar, Animator] | Failure] = Latest()
        self._read: Latest[PromptReading | Failure] = Latest()
        self._prompts: Latest[str] = Latest()
        self.is_loading = False
        self._errand_thread = threading.Thread(target=self._run_errands, name="errands", daemon=True)
        self._errand_thread.start()

    # ---- avatar ----------------------------------------------------------------------------------------------------

    def load_avatar(self, load: Callable[[], Avatar]) -> None:
        """Run `load` (which may take seconds) off the frame loop; the old avatar stays until the new one is there."""
        self.is_loading = True

        def errand() -> None:
            try:
                avatar = load()
                self._loaded.put((avatar, Animator(avatar)))
            except Exception as error:  # the end of this errand: shown as a message
                self._loaded.put(Failure("avatar", error))

        self._errands.put(errand)

    def use_avatar(self, avatar: Avatar, animator: Animator | None = None) -> None:
        """Show this avatar, at once; the source and what is typed stay."""
        self.avatar = avatar
        self.animator = animator or Animator(avatar)
        self.reading = None
        for line in avatar.missing:
            self._say(line, is_error=True)
        self._stop_driver()
        self.timeline = MotionTimeline(len(avatar.face.neutral), device=avatar.rig.means.device)
        self._motion = None
        if avatar.speech is not None:
            self._motion = self._make_motion(avatar, self.edits)
            self._start_driver()
            self._begin_speech()
        self._preparing_since = time.monotonic()
        if self.prompt:
            self.set_prompt(self.prompt)
        elif avatar.text is not None:
            self._errands.put(lambda: avatar.text.read("neutral"))  # the text tower is slow to load; not at the first prompt

    def _new_motion(self, avatar: Avatar, edits: EditTrack) -> SpeechMotion:
        return SpeechMotion(avatar, edits, seed=self._seed, blinks=self._blinks)

    # ---- source ----------------------------------------------------------------------------------------------------

    def open_sound(self, path: str | Path, *, plays: bool = True) -> None:
        """Begin to decode a file; it becomes the source once it proves to be sound. `InputError` where there is no file."""
        opening = Sound(path)
        if self._opening is not None:
            self._errands.put(self._opening.close)
        self._opening = opening
        self._plays_when_open = plays

    def use_microphone(self, device: str | None = None) -> None:
        """Listen; the picture follows the voice by a constant delay."""
        self.pause()
        self._close_source()
        stream = self._motion.stream if self._motion else None
        delay = ((stream.hop_ms + stream.lookahead_ms) / 1000 if stream else 0.28) + _MICROPHONE_COMPUTE_SECONDS
        self.microphone = Microphone(device, delay_seconds=delay)
        self._begin_speech()

    def stop_microphone(self) -> None:
        if self.microphone is not None:
            self._close_source()
            self.timeline.clear()

    @property
    def is_opening(self) -> bool:
        """A file is being tried."""
        return self._opening is not None

    @property
    def source(self) -> _Source | None:
        return self.microphone or self.sound

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
        return self._wants_to_play or self.microphone is not None

    def play(self) -> None:
        if self.sound is None or self._wants_to_play:
            return
        if self.now() >= self.seconds - 0.05 and self.sound.is_complete:
            self.seek(0.0)
        elif self._driver is not None and self._motion is not None and self.timeline.end_seconds is None:
            self._begin_speech()
        self._wants_to_play = True
        self._preparing_since = time.monotonic()

    def pause(self) -> None:
        self._wants_to_play = False
        self._clock.pause()

    def toggle(self) -> None:
        self.pause() if self._wants_to_play else self.play()

    def seek(self, seconds: float) -> None:
        """Go there; while playing, sound resumes as soon as the face has motion for it."""
        if self.sound is None:
            return
        if self._clock.is_playing:
            self._clock.pause()
        self._clock.seek(min(max(0.0, seconds), max(0.0, self.seconds - 0.02)))
        self._preparing_since = time.monotonic()
        self._begin_speech()

    # ---- edits -----------------------------------------------------------------------------------------------------

    def set_edit(self, edit: AUEdit) -> None:
        """What the artist asks for from now on. While time stands still it holds at once, without easing."""
        moves = self._clock.is_playing or self.microphone is not None
        self._edit = edit
        self.edits.add(self.now(), edit, ease_seconds=None if moves else 0.0)

    def set_prompt(self, text: str) -> bool:
        """Have the prompt read by a worker; `reading` changes when that is done. Newest wins. False: nothing can read it."""
        self.prompt = text
        if self.avatar is None:
            return True  # as soon as there is one
        if self.avatar.text is None:
            self._say("; ".join(self.avatar.missing) or "this avatar has no text encoder: prompts have no effect", is_error=True)
            return False
        text_to_au = self.avatar.text
        self._prompts.put(text)

        def errand() -> None:
            newest = self._prompts.take()
            if newest is None:
                return
            try:
                self._read.put(text_to_au.read(newest))
            except Exception as error:  # the end of this errand: shown as a message
                self._read.put(Failure("prompt", error))

        self._errands.put(errand)
        return True

    def forget_prompt(self) -> None:
        """There is no prompt any more; one that is being read will not come."""
        self.prompt, self.reading = "", None
        self._prompts.take()

    def edit_now(self) -> AUEdit:
        return self.edits.at(self.now())

    def motion(self) -> MotionFrame:
        """The face at this moment."""
        return self.timeline.at(self.now())

    # ---- once a frame ----------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Take in what threads and processes have done since the last frame."""
        self._update_loaded()
        self._update_output()
        self._update_opening()
        self._update_source()
        self._update_recorder()
        failure = self._failure.take()
        if failure is not None:
            if failure.where == "speech":
                self.pause()
                self.timeline.clear()
            self._say(f"{failure.where}: {describe(failure.error)}", is_error=True)
        if self._driver is not None:
            self._driver.now_seconds = self.now()
        if self._wants_to_play and not self._clock.is_playing and self.sound is not None and self._is_prepared():
            self._clock.play()

    def take_messages(self) -> list[Message]:
        messages, self.messages = self.messages, []
        return messages

    @property
    def delay_ms(self) -> float:
        """How far the picture is behind the voice; 0 for a file, whose sound waits for the picture."""
        if self.microphone is None:
            return 0.0
        return 1000.0 * (self.microphone.delay_seconds + self.microphone.capture_seconds)

    @property
    def hop_seconds_spent(self) -> float:
        return self._driver.hop_seconds_spent if self._driver else 0.0

    def _is_prepared(self) -> bool:
        if self._motion is None:
            return not self.is_loading  # sound without a face would be over before the head is there
        end = self.timeline.end_seconds
        hop = self._motion.stream.hop_ms / 1000
        has_motion = end is not None and (end >= self._clock.now() + hop or self.timeline.is_over)
        return has_motion or time.monotonic() - self._preparing_since > _PREPARE_SECONDS

    def _update_loaded(self) -> None:
        loaded = self._loaded.take()
        if loaded is not None:
            self.is_loading = False
            if isinstance(loaded, Failure):
                self._say(describe(loaded.error), is_error=True)
            else:
                self.use_avatar(*loaded)
        read = self._read.take()
        if isinstance(read, Failure):
            self._say(f"prompt: {describe(read.error)}", is_error=True)
        elif read is not None and self.prompt:
            self.reading = read

    def _update_output(self) -> None:
        player = self._player
        if player is None:
            return
        player.poll()
        if player.failure is None:
            return
        position, wanted = player.now(), self._wants_to_play
        self._player = None
        self._errands.put(player.close)
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

    def _update_source(self) -> None:
        if self.microphone is not None:
            self.microphone.poll()
            if self.microphone.failure is not None:
                self._say(f"Microphone: {self.microphone.failure}", is_error=True)
                self.stop_microphone()
            return
        if self.sound is None:
            return
        if self._was_decoding:
            try:
                self.sound.poll()
            except InputError as error:
                self._say(str(error), is_error=True)
                self.pause()
                self.sound, self._was_decoding = None, False
                return
            if self.sound.is_complete:
                self._was_decoding = False
                if self._player is not None:
                    self._player.complete()
                for note in self.sound.notes:
                    self._say(f"{self.sound.name}: {note}")
        ended = self._player.has_ended if self._player else self._clock.now() >= self.seconds and self.sound.is_complete
        if self._wants_to_play and ended:
            if self.is_looping:
                self.seek(0.0)
            else:
                self.pause()
                self._clock.seek(self.seconds)

    # ---- recording -------------------------------------------------------------------------------------------------

    def start_recording(self, folder: Path, size: tuple[int, int], fps: float) -> Path:
        """Begin a take under a free name; `InputError` where it cannot be written."""
        assert self.recorder is None
        path = free_take_path(folder)
        self.recorder = Recorder(path, size, fps)
        self._recording = _RecordingTime(fps)
        return path

    def offer(self, render: Render) -> None:
        """Give the picture of this moment, and all the sound since the last one, to the take if there is one."""
        if self.recorder is None or self._recording is None:
            return
        moves = self.microphone is not None or self._clock.is_playing
        source = self.source
        sound = self._recording.sound_until(self.now(), time.monotonic(), source.playback if source and moves else None)
        try:
            self.recorder.hear(sound)
            index = self._recording.picture_index(self.recorder.sound_frames)
            if index is not None:
                self.recorder.offer(render.color, index)
        except RecorderError as error:
            self._lose_recorder(error)

    def stop_recording(self) -> None:
        """End the take; a message follows once its file is whole."""
        if self.recorder is None or self._recording is None:
            return
        total, silence = self._recording.ending(self.recorder.sound_frames)
        self._recording = None
        try:
            self.recorder.hear(silence)
            self.recorder.begin_finish(total)
        except RecorderError as error:
            self._lose_recorder(error)

    @property
    def is_recording(self) -> bool:
        """A take is running; false already while its end is being written."""
        return self._recording is not None

    def _update_recorder(self) -> None:
        recorder = self.recorder
        if recorder is None:
            return
        try:
            recorder.poll()
        except RecorderError as error:
            self._lose_recorder(error)
            return
        if recorder.is_finished:
            self.recorder = None
            self.last_take = recorder.path
            self._say(f"Saved {recorder.path} ({recorder.seconds:.1f} s, {recorder.bytes_written / 1e6:.1f} MB)")
        elif time.monotonic() - self._disk_checked_at > 1.0:
            self._disk_checked_at = time.monotonic()
            if self.is_recording and shutil.disk_usage(recorder.path.parent).free < _LOW_DISK_BYTES:
                self._say("The disk is nearly full: recording stopped, the take is kept", is_error=True)
                self.stop_recording()

    def _lose_recorder(self, error: RecorderError) -> None:
        recorder, self.recorder, self._recording = self.recorder, None, None
        assert recorder is not None
        kept = recorder.keep_what_plays()
        self._say(f"{error}; " + (f"what was written so far is {kept}" if kept else "nothing could be kept"), is_error=True)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _begin_speech(self) -> None:
        """Let the speech thread work from the present moment of the present source, with the present edit throughout."""
        self.edits.clear()
        self.edits.add(-1e6, self._edit, ease_seconds=0.0)
        source = self.source
        if source is None or self._motion is None or self._driver is None:
            self.timeline.clear()
            return
        sound = self.sound
        is_complete = (lambda: False) if sound is None else (lambda: sound.is_complete)
        self._driver.begin(SpeechJob(self._motion, source.speech, is_complete, self.now()))

    def _start_driver(self) -> None:
        self._driver = SpeechDriver(self.timeline, self._failure)
        self._driver_thread = threading.Thread(target=self._driver.run, name="speech", daemon=True)
        self._driver_thread.start()

    def _stop_driver(self) -> None:
        if self._driver is not None and self._driver_thread is not None:
            self._driver.stop()
            self._driver_thread.join(timeout=5.0)
        self._driver = self._driver_thread = None

    def _run_errands(self) -> None:
        while (errand := self._errands.get()) is not None:
            try:
                errand()
            except Exception as error:  # the end of this errand, not of the thread
                self._failure.put("worker", error)

    def _close_source(self) -> None:
        """Let go of the source; its process may take a moment to end, which is not for the frame loop to wait for."""
        for source in (self.microphone, self.sound):
            if source is not None:
                self._errands.put(source.close)
        self.microphone = self.sound = None

    def _say(self, text: str, *, is_error: bool = False) -> None:
        self.messages.append(Message(text, is_error))

    def close(self) -> None:
        """Stop from any state; a take is finished, not lost."""
        self.pause()
        self.stop_recording()
        while self.recorder is not None:
            self._update_recorder()
            time.sleep(0.01)
        self._stop_driver()
        self._close_source()
        for part in (self._opening, self._player):
            if part is not None:
                self._errands.put(part.close)
        self._errands.put(None)
        self._errand_thread.join(timeout=10.0)


class _RecordingTime:
    """The take's own time: what was heard, and silence for as long as nothing was.

    Counted in sample frames of sound, so that pictures and sound cannot drift apart.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._source: SpoolFormat | None = None
        self._reader: SpoolReader | None = None
        self._frame = 0  # of the source, heard so far
        self._wall: float | None = None
        self._next_index = 0

    def sound_until(self, now: float, wall: float, source: SpoolFormat | None) -> np.ndarray:  # -> [n, 2] int16
        """Sound heard since the last call; `source` is None while nothing plays."""
        elapsed = 0.0 if self._wall is None else wall - self._wall
        self._wall = wall
        frame = round(now * PLAYBACK_RATE)
        if source is None:
            self._close()
            return np.zeros((round(elapsed * PLAYBACK_RATE), 2), dtype=np.int16)
        if source != self._source:
            self._close()
            self._source, self._reader, self._frame = source, SpoolReader(source), frame
            return np.zeros((round(elapsed * PLAYBACK_RATE), 2), dtype=np.int16)
        count = frame - self._frame
        start, self._frame = self._frame, frame
        if not 0 <= count <= max(2.0, 4 * elapsed) * PLAYBACK_RATE:  # a seek
            return np.zeros((round(elapsed * PLAYBACK_RATE), 2), dtype=np.int16)
        assert self._reader is not None
        return self._reader.read(start, count)

    def picture_index(self, sound_frames: int) -> int | None:
        """Which picture of the take is due, None while the last one still stands."""
        index = int(sound_frames * self._fps / PLAYBACK_RATE + 0.5)
        if index < self._next_index:
            return None
        self._next_index = index + 1
        return index

    def ending(self, sound_frames: int) -> tuple[int, np.ndarray]:  # -> pictures in all, [n, 2] int16
        """How many pictures the take has, and the silence that brings its sound to the same length."""
        total = max(1, self._next_index, round(sound_frames * self._fps / PLAYBACK_RATE))
        missing = round(total * PLAYBACK_RATE / self._fps) - sound_frames
        return total, np.zeros((max(0, missing), 2), dtype=np.int16)

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._source = self._reader = None


def describe(error: BaseException) -> str:
    """One line of an exception for people."""
    text = " ".join(str(error).split())
    if isinstance(error, InputError):
        return text
    return f"{type(error).__name__}: {text}"[:300]
