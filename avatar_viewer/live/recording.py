"""A session's take while it runs: which picture of it is due, which sound was heard, and what happens when it cannot go on.

Files and encoders are `recorder.py`'s; here is the take's own time. Belongs to the main thread; nothing here waits but `close`.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .decoding import PLAYBACK_RATE
from .messages import Say
from .recorder import Recorder, RecorderError, free_take_path
from .spool import SpoolFormat, SpoolReader

if TYPE_CHECKING:
    from ..types import Render

_LOW_DISK_BYTES = 200 << 20


class Recording:
    """The take that is running, or being finished, if there is one."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.recorder: Recorder | None = None
        self.last_take: Path | None = None
        self._time: _RecordingTime | None = None
        self._disk_checked_at = 0.0

    @property
    def is_running(self) -> bool:
        """False already while a take's end is being written."""
        return self._time is not None

    def start(self, folder: Path, size: tuple[int, int], fps: float) -> Path:
        """Begin a take under a free name; `InputError` where it cannot be written."""
        assert self.recorder is None
        path = free_take_path(folder)
        self.recorder = Recorder(path, size, fps)
        self._time = _RecordingTime(fps)
        return path

    def offer(self, render: Render, now: float, heard: SpoolFormat | None) -> None:
        """The picture of this moment, and all the sound since the last one; `heard` is None while nothing plays."""
        if self.recorder is None or self._time is None:
            return
        sound = self._time.sound_until(now, time.monotonic(), heard)
        try:
            self.recorder.hear(sound)
            index = self._time.picture_index(self.recorder.sound_frames)
            if index is not None:
                self.recorder.offer(render.color, index)
        except RecorderError as error:
            self._lose(error)

    def stop(self) -> None:
        """End the take; a message follows once its file is whole."""
        if self.recorder is None or self._time is None:
            return
        total, silence = self._time.ending(self.recorder.sound_frames)
        self._time = None
        try:
            self.recorder.hear(silence)
            self.recorder.begin_finish(total)
        except RecorderError as error:
            self._lose(error)

    def update(self) -> None:
        """Once a frame."""
        recorder = self.recorder
        if recorder is None:
            return
        try:
            recorder.poll()
        except RecorderError as error:
            self._lose(error)
            return
        if recorder.is_finished:
            self.recorder = None
            self.last_take = recorder.path
            self._say(f"Saved {recorder.path} ({recorder.seconds:.1f} s, {recorder.bytes_written / 1e6:.1f} MB)")
        elif time.monotonic() - self._disk_checked_at > 1.0:
            self._disk_checked_at = time.monotonic()
            if self.is_running and shutil.disk_usage(recorder.path.parent).free < _LOW_DISK_BYTES:
                self._say("The disk is nearly full: recording stopped, the take is kept", is_error=True)
                self.stop()

    def close(self) -> None:
        """Finish a take that is running and wait for its file."""
        self.stop()
        while self.recorder is not None:
            self.update()
            time.sleep(0.01)

    def _lose(self, error: RecorderError) -> None:
        recorder, self.recorder, self._time = self.recorder, None, None
        assert recorder is not None
        kept = recorder.keep_what_plays()
        self._say(f"{error}; " + (f"what was written so far is {kept}" if kept else "nothing could be kept"), is_error=True)


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
