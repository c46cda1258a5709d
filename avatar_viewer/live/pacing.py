"""How often the window draws and how finely, so that sound and motion get what they need; measured, not guessed.

When drawing is slower than the motion, or the speech thread is late, quality is shed step by step: the size of the picture,
the rate of the display, the sampler's steps, and in the end pictures are shown twice. Sound is never shed. It comes back
step by step when there has been room for a while; after a step back that did not hold, the wait doubles. Knows times only:
no window, no session.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_SPAN_SECONDS = 1.0  # of frames that decide
_FEWEST_FRAMES = 3  # however long they took
_ROOM = 0.55  # of the time a frame may take: below it there is room for the next better step
_SLACK = 1.1  # a frame may take this much longer before it counts as slow
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 4.0, 64.0
_HELD_SECONDS = 10.0  # a step back that lasts so long has held
_MOTION_FPS = 25.0


@dataclass(frozen=True)
class Quality:
    """What is still done at one step of shedding."""

    about: str = ""  # for the badge
    scale: float = 1.0  # of the picture's sides
    fps: float = _MOTION_FPS  # slower than this is too slow
    is_fps_limit: bool = False  # and faster is not tried
    steps_share: float = 1.0  # of the sampler's steps
    shows_each: int = 1  # display frames in which one picture stands


SHEDDING = (
    Quality(),
    Quality("smaller picture", 0.75),
    Quality("smaller picture", 0.5),
    Quality("slower display", 0.5, 20.0, True),
    Quality("slower display", 0.5, 15.0, True),
    Quality("fewer sampler steps", 0.5, 15.0, True, 0.5),
    Quality("repeated pictures", 0.5, 15.0, True, 0.5, 2),
    Quality("repeated pictures", 0.5, 12.0, True, 0.5, 4),
)


class Pacing:
    """The step of shedding, and what it means for this frame. Belongs to the thread that draws."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._step = 0
        self._frames: deque[tuple[float, float]] = deque()  # when, seconds of work
        self._changed_at = self._roomy_since = monotonic()
        self._returned_at: float | None = None
        self._wait_seconds = _FIRST_WAIT_SECONDS
        self._late_before: int | None = None
        self._late_at = -1e9
        self._shown_for = 0

    @property
    def quality(self) -> Quality:
        return SHEDDING[self._step]

    @property
    def badge(self) -> str:
        """What is being shed, for the artist; empty while nothing is."""
        quality = self.quality
        return f"busy: {quality.about}" if quality.about else ""

    def size(self, wanted: tuple[int, int]) -> tuple[int, int]:
        """Of the picture, even and not tiny."""
        width, height = (max(64, 2 * round(side * self.quality.scale / 2)) for side in wanted)
        return (width, height) if self.quality.scale < 1.0 else wanted

    def limit_fps(self, fps: float) -> float:
        return min(fps, self.quality.fps) if self.quality.is_fps_limit else fps

    def is_picture_due(self) -> bool:
        """Whether this display frame has a new picture; to be asked once a frame in which something moves."""
        self._shown_for += 1
        if self._shown_for < self.quality.shows_each:
            return False
        self._shown_for = 0
        return True

    def note(self, work_seconds: float, late_frames: int, *, has_fixed_size: bool = False) -> None:
        """A frame with a new picture has taken so long; `late_frames` counts frames without motion so far."""
        now = self._monotonic()
        if self._late_before is not None and late_frames > self._late_before:
            self._late_at = now
        self._late_before = late_frames
        self._frames.append((now, work_seconds))
        while len(self._frames) > _FEWEST_FRAMES and now - self._frames[0][0] > _SPAN_SECONDS:
            self._frames.popleft()
        if now - self._changed_at < _SPAN_SECONDS or len(self._frames) < _FEWEST_FRAMES:
            return
        spent = statistics.median(seconds for _, seconds in self._frames)
        if spent > _SLACK / self.quality.fps or now - self._late_at < _SPAN_SECONDS:
            self._roomy_since = now
            self._shed(now, has_fixed_size)
        elif spent > _ROOM / SHEDDING[max(0, self._step - 1)].fps:
            self._roomy_since = now
        elif self._step and now - self._roomy_since >= self._wait_seconds:
            self._return(now)
        elif self._returned_at is not None and now - self._returned_at > _HELD_SECONDS:
            self._returned_at, self._wait_seconds = None, _FIRST_WAIT_SECONDS

    def _shed(self, now: float, has_fixed_size: bool) -> None:
        step = self._step + 1
        while has_fixed_size and step < len(SHEDDING) and _differ_in_size_only(SHEDDING[step], self.quality):
            step += 1
        if step >= len(SHEDDING):
            return
        if self._returned_at is not None:  # the step back did not hold
            self._wait_seconds = min(2.0 * self._wait_seconds, _LONGEST_WAIT_SECONDS)
            self._returned_at = None
        self._change(step, now)

    def _return(self, now: float) -> None:
        self._returned_at = now
        self._change(self._step - 1, now)

    def _change(self, step: int, now: float) -> None:
        self._step, self._changed_at, self._roomy_since = step, now, now
        self._frames.clear()
        self._shown_for = 0


def _differ_in_size_only(one: Quality, other: Quality) -> bool:
    return (one.fps, one.steps_share, one.shows_each) == (other.fps, other.steps_share, other.shows_each)
