"""A session's take while it runs: which picture of it is due, which sound was heard, and what happens when it cannot go on.

Files and encoders are `recorder.py`'s; here is the take's own time. Belongs to the main thread; nothing here waits but `close`.
An encoder that dies or hangs costs no performance: what it wrote is kept, and the take goes on in a new file.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .decoding import PLAYBACK_RATE
from .messages import Say
from .recorder import EncoderLost, Recorder, RecorderError
from .recovery import examine, recover
from .spool import SpoolFormat, SpoolReader
from .take_folder import TakeFolder, free_take_path
from .take_journal import Moment, TakeJournal

if TYPE_CHECKING:
    from ..types import Render

LOW_DISK_BYTES = 200 << 20
LOW_DISK_SECONDS = 60.0  # of this take; whichever is more
_LEAP_SECONDS = 4.0  # more than a device may stall and then catch up
_MAX_CONTINUED = 3  # files of one take that an encoder has left behind; a machine that does that again and again cannot record
_JOURNAL_BYTES = PLAYBACK_RATE * 4 + 16_000 * 4  # a second of a take's sound, heard and spoken


class Recording:
    """The take that is running, or being finished, if there is one."""

    def __init__(self, say: Say, defer: Callable[[Callable[[], None]], None]) -> None:
        self._say = say
        self._defer = defer  # has something done that may take a moment
        self.recorder: Recorder | None = None
        self.last_take: Path | None = None
        self.disk_seconds_left = float("inf")  # at the rate of this take
        self._journal: TakeJournal | None = None
        self._time: _RecordingTime | None = None
        self._disk_checked_at = 0.0
        self._continued = 0

    @property
    def is_running(self) -> bool:
        """False already while a take's end is being written."""
        return self._time is not None

    def start(self, folder: Path, size: tuple[int, int], fps: float, moment: Moment) -> Path:
        """Begin a take under a free name; `InputError` where it cannot be written."""
        assert self.recorder is None
        free = free_bytes(folder)
        if free < LOW_DISK_BYTES:
            raise InputError(f"{folder}: {free / 1e6:.0f} MB left on its disk; make room for {LOW_DISK_BYTES / 1e6:.0f}, or choose another folder")
        self._continued = 0
        return self._begin(folder, size, fps, moment)

    def _begin(self, folder: Path, size: tuple[int, int], fps: float, moment: Moment) -> Path:
        path = free_take_path(folder)
        recorder = Recorder(path, size, fps)
        try:
            self._journal = TakeJournal(recorder.folder, moment.avatar, size, fps, time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        except OSError as error:
            recorder.discard()
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None
        self.recorder = recorder
        self._time = _RecordingTime(fps)
        self.disk_seconds_left = float("inf")
        return path

    def offer(self, render: Render, now: float, heard: SpoolFormat | None, moment: Moment) -> None:
        """The picture of this moment, and all the sound since the last one; `heard` is None while nothing plays."""
        recorder, journal = self.recorder, self._journal
        if recorder is None or journal is None or self._time is None:
            return
        try:
            sound = self._time.sound_until(now, time.monotonic(), heard)
            before = recorder.sound_frames
            recorder.hear(sound.samples)
            index = self._time.picture_index(recorder.sound_frames)
            at = recorder.sound_frames
            if index is not None:
                at = min(at, round(index * PLAYBACK_RATE / recorder.fps))
            try:
                journal.note_sound(before, len(sound.samples), sound.source_frame, runs=sound.runs)
                journal.note(at, moment)
            except OSError as error:
                raise RecorderError(f"{recorder.path}: recording stopped: {error.strerror}") from None
            if index is not None and render.color.shape[:2] == recorder.size[::-1]:  # otherwise one drawn before the take began
                recorder.offer(render.color, index)
        except RecorderError as error:
            self._lose(error, moment)

    def jump(self) -> None:
        """The source's time is about to go elsewhere: what lies between is not heard."""
        if self._time is not None:
            self._time.close()

    def stop(self) -> None:
        """End the take; a message follows once its file is whole."""
        if self.recorder is None or self._time is None:
            return
        total, silence = self._time.ending(self.recorder.sound_frames)
        self._time.close()
        self._time = None
        self._close_journal()
        try:
            self.recorder.hear(silence)
            self.recorder.begin_finish(total)
        except RecorderError as error:
            self._lose(error, None)

    def update(self, moment: Moment) -> None:
        """Once a frame."""
        recorder = self.recorder
        if recorder is None:
            return
        try:
            recorder.poll()
        except RecorderError as error:
            self._lose(error, moment)
            return
        if recorder.is_finished:
            self.recorder = None
            self.last_take = recorder.path
            self._say(f"Saved {recorder.path} ({recorder.seconds:.1f} s, {recorder.bytes_written / 1e6:.1f} MB)")
            if recorder.trouble:
                self._say(f"{recorder.path.with_suffix('.take')} could not be written: {recorder.trouble}", is_error=True)
        elif self.is_running and time.monotonic() - self._disk_checked_at > 1.0:
            self._disk_checked_at = time.monotonic()
            self._check_disk(recorder)

    def close(self) -> None:
        """Finish a take that is running and wait for its file; not for an encoder that hangs."""
        self.stop()
        if self.recorder is not None:
            self.recorder.hurry()
        while (recorder := self.recorder) is not None:
            try:
                recorder.poll()
            except RecorderError as error:
                self._lose(error, None)
                continue
            if recorder.is_finished:
                self.recorder, self.last_take = None, recorder.path
            time.sleep(0.01)

    def _check_disk(self, recorder: Recorder) -> None:
        free = free_bytes(recorder.path.parent)
        rate = (recorder.bytes_written / recorder.seconds if recorder.seconds > 2 else 0) + _JOURNAL_BYTES
        self.disk_seconds_left = max(0.0, free - LOW_DISK_BYTES) / rate
        if free < max(LOW_DISK_BYTES, LOW_DISK_SECONDS * rate):
            self._say(f"The disk is nearly full ({free / 1e6:.0f} MB left): recording stopped, the take is kept", is_error=True)
            self.stop()

    def _lose(self, error: RecorderError, moment: Moment | None) -> None:
        """Keep what there is; where only the encoder was at fault and the take is to go on (`moment`), go on in a new file."""
        recorder, was_running = self.recorder, self._time is not None
        assert recorder is not None
        if self._time is not None:
            self._time.close()
        self.recorder = self._time = None
        self._close_journal()
        kept = recorder.keep_what_plays()
        self.last_take = kept or self.last_take
        text = f"{error}; " + (f"what was written so far is {kept}" if kept else "no picture could be kept")
        if recorder.folder.path.exists():
            self._defer(lambda: self._recover(recorder.folder))
        if was_running and moment is not None and isinstance(error, EncoderLost) and self._continued < _MAX_CONTINUED:
            self._continued += 1
            try:
                text += f"; the take goes on in {self._begin(recorder.path.parent, recorder.size, recorder.fps, moment).name}"
            except InputError as second:
                text += f"; it could not go on: {second}"
        self._say(text, is_error=True)

    def _recover(self, folder: TakeFolder) -> None:
        try:
            recovered = recover(examine(folder))
        except InputError as error:
            self._say(str(error), is_error=True)
            return
        if recovered.take is not None:
            self._say(f"Sound and events of that take, {recovered.seconds:.1f} s, are {recovered.take}: `render --take` makes its picture")

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def free_bytes(folder: Path) -> int:
    """Left on the disk of a folder, or of where it would be."""
    for place in (folder, *folder.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return 0


@dataclass(frozen=True)
class Heard:
    """A piece of a take's sound."""

    samples: np.ndarray  # [n, 2] int16
    source_frame: int  # where it begins in its source, or where the source stands
    runs: bool  # it is the source's sound; otherwise silence


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

    def sound_until(self, now: float, wall: float, source: SpoolFormat | None) -> Heard:
        """Sound heard since the last call; `source` is None while nothing plays."""
        elapsed = 0.0 if self._wall is None else wall - self._wall
        self._wall = wall
        frame = round(now * PLAYBACK_RATE)
        start, self._frame = self._frame, frame
        if source is None:
            self.close()
        elif source != self._source:
            self.close()
            self._source, self._reader = source, SpoolReader(source)
        elif 0 <= (count := frame - start) <= max(_LEAP_SECONDS, 4 * elapsed) * PLAYBACK_RATE:  # otherwise the clock has leapt
            assert self._reader is not None
            return Heard(self._reader.read(start, count), start, True)
        return Heard(np.zeros((round(elapsed * PLAYBACK_RATE), 2), dtype=np.int16), frame, False)

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

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._source = self._reader = None
