"""When the next frame begins: the pause between two frames, and what cuts it short.

A window that nobody touches draws seldom. One that is held or typed into answers at once, because what a touch changes is
seen three frames later: one takes it in, one draws the picture, and on Linux the toolkit shows a picture one frame late.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

_LOADING_FPS = 12.0  # what is being loaded needs the cores
_HURRY_SECONDS, _HURRY_FPS = 0.15, 120.0  # after a touch; most frames take longer, and then the next one follows at once
_RESTING_FPS = ((2.0, 30.0), (10.0, 12.0), (1e9, 5.0))  # (seconds since the last touch, frames a second)
_IDLE_SECONDS, _IDLE_FPS = 2.0, 2.0  # instead, where mouse and keys can be sensed without drawing
_TYPING_FPS = 12.0  # for the cursor
_AWAKE_SECONDS = 0.3  # that a touch which was sensed is waited for
_SENSE_SECONDS, _IDLE_SENSE_SECONDS = 0.004, 0.03  # between looks at mouse and keys


class Sense(Protocol):
    """Whether mouse or keys changed since the last look, without drawing a frame."""

    @property
    def is_able(self) -> bool: ...

    def has_changed(self, left: int, top: int, width: int, height: int) -> bool: ...


@dataclass(frozen=True)
class Need:
    """What the frame that was just drawn asks of the next."""

    moving_fps: float | None  # None: nothing moves by itself
    is_held: bool  # a mouse button is down, or a text box has the cursor
    is_loading: bool = False
    most_fps: float = 1e9  # a slow machine's limit, whatever is touched


class Rest:
    """The sleep that the time since the last touch allows. Belongs to the thread that draws."""

    def __init__(
        self, sense: Sense, monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._sense, self._monotonic, self._sleep = sense, monotonic, sleep
        self._touched_at = monotonic()
        self._hurry_until = self._awake_until = -1e9

    def note_touch(self) -> None:
        """Mouse or keys did something."""
        self._touched_at = self._monotonic()

    def hurry(self) -> None:
        """A touch changed something: the next frames come soon."""
        self._hurry_until = self._monotonic() + _HURRY_SECONDS

    def wait(self, began: float, need: Need, rectangle: tuple[int, int, int, int]) -> None:
        """Sleep until the frame after the one that began then; `rectangle` is the window's place on the screen."""
        now = self._monotonic()
        is_idle = self._is_idle(now, need)
        until = began + 1.0 / self._fps(now, need, is_idle)
        can_wake = self._sense.is_able and not need.is_loading
        # What is held answers at once. A mouse that only passes over is followed at the resting rate.
        soonest = began + 1.0 / min(_HURRY_FPS if need.is_held else _RESTING_FPS[0][1], need.most_fps)
        self._sleep(max(0.0, (min(soonest, until) if can_wake else until) - now))
        while (left := until - self._monotonic()) > 0.0:
            if self._sense.has_changed(*rectangle):
                self._awake_until = self._monotonic() + _AWAKE_SECONDS
                if need.is_held or is_idle:
                    self.hurry()
                return
            self._sleep(min(left, _IDLE_SENSE_SECONDS if is_idle and not need.is_held else _SENSE_SECONDS))

    def _is_idle(self, now: float, need: Need) -> bool:
        is_quiet = need.moving_fps is None and not need.is_loading and now > max(self._hurry_until, self._awake_until)
        return is_quiet and now - self._touched_at > _IDLE_SECONDS and self._sense.is_able

    def _fps(self, now: float, need: Need, is_idle: bool) -> float:
        """Frames a second if nobody touches anything."""
        if need.is_loading:
            return _LOADING_FPS
        if is_idle:
            return _TYPING_FPS if need.is_held else _IDLE_FPS
        if now < self._hurry_until:
            return min(_HURRY_FPS, need.most_fps)
        if need.moving_fps is not None:
            return min(need.moving_fps, need.most_fps)
        since = 0.0 if now <= self._awake_until else now - self._touched_at
        return min(next(fps for seconds, fps in _RESTING_FPS if since < seconds), need.most_fps)
