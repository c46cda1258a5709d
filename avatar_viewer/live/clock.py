"""Session time in seconds of the source. Three clocks with one face: `now()`, and where it makes sense play, pause and seek.

Everything that depends on time takes a clock from outside; nothing else in the product asks what time it is for motion.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    is_playing: bool

    def now(self) -> float: ...

    def play(self) -> None: ...

    def pause(self) -> None: ...

    def seek(self, seconds: float) -> None: ...

    def set_rate(self, rate: float) -> None:
        """Seconds of the source in a second of the world: 0.5 is half speed."""
        ...


class WallClock:
    """For a machine without sound output: the monotonic clock, started and stopped."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._base_seconds = 0.0
        self._base_monotonic = 0.0
        self._rate = 1.0
        self.is_playing = False

    def now(self) -> float:
        running = self._monotonic() - self._base_monotonic if self.is_playing else 0.0
        return self._base_seconds + self._rate * running

    def play(self) -> None:
        if not self.is_playing:
            self._base_monotonic = self._monotonic()
            self.is_playing = True

    def pause(self) -> None:
        self._base_seconds = self.now()
        self.is_playing = False

    def seek(self, seconds: float) -> None:
        self._base_seconds = seconds
        self._base_monotonic = self._monotonic()

    def set_rate(self, rate: float) -> None:
        self.seek(self.now())
        self._rate = rate


class SteppedClock:
    """For export and tests: time stands still until it is told to move."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._rate = 1.0
        self.is_playing = False

    def now(self) -> float:
        return self._seconds

    def play(self) -> None:
        self.is_playing = True

    def pause(self) -> None:
        self.is_playing = False

    def seek(self, seconds: float) -> None:
        self._seconds = seconds

    def set_rate(self, rate: float) -> None:
        self._rate = rate

    def advance(self, seconds: float) -> None:
        """Let the world's time pass; the source moves on, if playing."""
        if self.is_playing:
            self._seconds += self._rate * seconds


class CounterClock:
    """Time told by a device's sample counter that is reported now and then, with jitter.

    Between reports the monotonic clock carries on; a report that differs by less than `jump_seconds` is approached slowly,
    so that the picture does not tremble; time never runs backwards except by `restart`.
    """

    def __init__(self, *, jump_seconds: float = 0.06, gain: float = 0.05) -> None:
        self._jump_seconds = jump_seconds
        self._gain = gain
        self._rate = 1.0
        self._offset: float | None = None  # media seconds minus monotonic seconds times the rate
        self._last = 0.0
        self._last_report: tuple[float, float] | None = None

    def restart(self, seconds: float, rate: float = 1.0) -> None:
        self._offset = None
        self._last_report = None
        self._last, self._rate = seconds, rate

    def report(self, media_seconds: float, monotonic_seconds: float) -> None:
        """The device says that `media_seconds` is heard at `monotonic_seconds`."""
        if (media_seconds, monotonic_seconds) == self._last_report:
            return
        self._last_report = (media_seconds, monotonic_seconds)
        offset = media_seconds - self._rate * monotonic_seconds
        if self._offset is None or abs(offset - self._offset) > self._jump_seconds:
            self._offset = offset
        else:
            self._offset += self._gain * (offset - self._offset)

    def at(self, monotonic_seconds: float, *, stall_seconds: float = 1.0) -> float:
        """Media time; stands still where the last report is older than `stall_seconds` (the device hangs)."""
        if self._offset is None or self._last_report is None:
            return self._last
        latest = min(monotonic_seconds, self._last_report[1] + stall_seconds)
        self._last = max(self._last, self._rate * latest + self._offset)
        return self._last
