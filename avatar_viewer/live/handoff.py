"""What threads pass to each other: the newest value, the first failure, and the timeline of face motion.

Each object has one lock, held for microseconds. Nothing here knows audio, windows or networks.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

from ..action_units import NUM_AUS
from ..types import MotionFrame, MotionWindow

Value = TypeVar("Value")


class Latest(Generic[Value]):
    """A slot where the newest value wins; `take` empties it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: Value | None = None

    def put(self, value: Value) -> None:
        with self._lock:
            self._value = value

    @property
    def is_empty(self) -> bool:
        with self._lock:
            return self._value is None

    def take(self) -> Value | None:
        with self._lock:
            value, self._value = self._value, None
            return value


@dataclass(frozen=True)
class Failure:
    """What went wrong where, for the person in front of the window."""

    where: str  # "speech", "recorder", "sound output", ...
    error: BaseException


class FirstFailure:
    """Where threads leave what killed them; the first one wins, the others are its echoes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failure: Failure | None = None

    def put(self, where: str, error: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = Failure(where, error)

    def take(self) -> Failure | None:
        with self._lock:
            failure, self._failure = self._failure, None
            return failure


class MotionTimeline:
    """Face motion by time, written by the speech thread and read by the frame loop.

    Between two motion frames the pose is interpolated. Past the end the last pose is held for `hold_seconds`, then eases to
    the neutral face within `ease_seconds`; such frames are counted as late while more motion is due.
    """

    def __init__(
        self, num_vertices: int, *, hold_seconds: float = 0.2, ease_seconds: float = 0.5, device: torch.device | str = "cpu"
    ) -> None:
        self._lock = threading.Lock()
        self._windows: deque[MotionWindow] = deque()
        zeros = torch.zeros(NUM_AUS, device=device)
        self._rest = MotionFrame(0.0, zeros, zeros, 0.0, torch.zeros(num_vertices, 3, device=device), torch.zeros(2, device=device))
        self._hold_seconds = hold_seconds
        self._ease_seconds = ease_seconds
        self._is_over = False
        self._is_restarting = False
        self._generation = 0
        self.late_frames = 0

    def clear(self) -> None:
        with self._lock:
            self._windows.clear()
            self._is_over = self._is_restarting = False
            self._generation += 1

    def restart(self) -> int:
        """After a seek: what is known stays on show until the first new window replaces it.

        Returns the new generation; motion of an older one, still under way in another thread, is not taken any more.
        """
        with self._lock:
            self._is_restarting, self._is_over = True, False
            self._generation += 1
            return self._generation

    def extend(self, window: MotionWindow, generation: int | None = None) -> None:
        """Append motion that begins where the last window ended, or anywhere after `restart` and `clear`."""
        with self._lock:
            if not len(window.au_codes) or generation not in (None, self._generation):
                return
            if self._is_restarting:
                self._windows.clear()
                self._is_restarting = False
            self._windows.append(window)

    def finish(self, generation: int | None = None) -> None:
        """Nothing more will come: the end is the sound's end and not a delay."""
        with self._lock:
            self._is_over = self._is_over or generation in (None, self._generation)

    @property
    def is_over(self) -> bool:
        with self._lock:
            return self._is_over

    @property
    def end_seconds(self) -> float | None:
        """Up to where there is motion; None while there is none, or none since `restart`."""
        with self._lock:
            return self._windows[-1].end_seconds if self._windows and not self._is_restarting else None

    def prune(self, before_seconds: float) -> None:
        """Forget windows that end before this time, except the newest."""
        with self._lock:
            while len(self._windows) > 1 and self._windows[0].end_seconds < before_seconds:
                self._windows.popleft()

    def neutral(self, seconds: float) -> MotionFrame:
        return replace(self._rest, seconds=seconds)

    def at(self, seconds: float) -> MotionFrame:
        """The face at this time."""
        with self._lock:
            windows = tuple(self._windows)
            is_over = self._is_over or self._is_restarting
        if not windows:
            return self.neutral(seconds)
        last = windows[-1]
        last_frame_seconds = last.end_seconds - 1.0 / last.fps
        if seconds > last_frame_seconds:
            overdue = seconds - last_frame_seconds
            if not is_over and overdue > 1.0 / last.fps:
                self.late_frames += 1
            fade = min(1.0, max(0.0, overdue - self._hold_seconds) / self._ease_seconds)
            return _scaled(_frame_of(last, len(last.au_codes) - 1, seconds), 1.0 - fade)
        for window, following in zip(reversed(windows), (None, *reversed(windows[1:]))):
            if seconds >= window.start_seconds or window is windows[0]:
                return _between(window, following, seconds)
        raise AssertionError("the first window always answers")


def _between(window: MotionWindow, following: MotionWindow | None, seconds: float) -> MotionFrame:
    position = max(0.0, (seconds - window.start_seconds) * window.fps)
    index = min(int(position + 1e-6), len(window.au_codes) - 1)
    part = min(1.0, max(0.0, position - index))
    first = _frame_of(window, index, seconds)
    if part < 1e-3:
        return first
    if index + 1 < len(window.au_codes):
        second = _frame_of(window, index + 1, seconds)
    elif following is not None:
        second = _frame_of(following, 0, seconds)
    else:
        return first
    return MotionFrame(
        seconds,
        torch.lerp(first.au_codes, second.au_codes, part),
        torch.lerp(first.au_applied, second.au_applied, part),
        first.voice + (second.voice - first.voice) * part,
        torch.lerp(first.offsets, second.offsets, part),
        torch.lerp(first.gaze, second.gaze, part),
    )


def _frame_of(window: MotionWindow, index: int, seconds: float) -> MotionFrame:
    return MotionFrame(
        seconds, window.au_codes[index], window.au_applied[index], float(window.voice[index]), window.offsets[index], window.gaze[index]
    )


def _scaled(frame: MotionFrame, weight: float) -> MotionFrame:
    if weight >= 1.0:
        return frame
    return MotionFrame(
        frame.seconds, frame.au_codes * weight, frame.au_applied * weight, frame.voice * weight, frame.offsets * weight, frame.gaze * weight
    )
