"""The bottom line: how fast, how late, on what, and the newest message."""

from __future__ import annotations

import statistics
import time
from collections import deque
from itertools import pairwise

from . import gate, theme

HEIGHT = 34
_WINDOW_SECONDS = 2.0
_MESSAGE_SECONDS = 12.0
_MOST_UNTOLD = 1000  # frames, where nobody asks


class FrameRate:
    """Displayed frames a second, as the median over a window, and how far the slow ones are from it."""

    def __init__(self) -> None:
        self._stamps: deque[float] = deque()
        self._untold: deque[float] = deque(maxlen=_MOST_UNTOLD)

    def tick(self, now: float) -> None:
        if self._stamps:
            self._untold.append(now - self._stamps[-1])
        self._stamps.append(now)
        while self._stamps and now - self._stamps[0] > _WINDOW_SECONDS:
            self._stamps.popleft()

    def take_spans(self) -> list[float]:
        """Seconds of every frame since this was last asked."""
        spans = list(self._untold)
        self._untold.clear()
        return spans

    @property
    def frame_seconds(self) -> list[float]:
        stamps = list(self._stamps)
        return [b - a for a, b in pairwise(stamps)]

    @property
    def fps(self) -> float:
        spans = self.frame_seconds
        return 1.0 / max(1e-6, statistics.median(spans)) if spans else 0.0

    @property
    def p95_ms(self) -> float:
        spans = sorted(self.frame_seconds)
        return 1000.0 * spans[int(0.95 * (len(spans) - 1))] if spans else 0.0


class StatusPanel:
    def __init__(self, look: theme.Look) -> None:
        self._said_at = 0.0
        self._is_error = False
        with gate.child(height=HEIGHT, border=False, always_use_window_padding=True, no_scrollbar=True) as self.tag:
            with gate.row(horizontal_spacing=18):
                self._speed = gate.text("")
                self._delay = gate.text("", color=theme.DIM)
                self._backend = gate.text("", color=theme.DIM)
                self._counters = gate.text("", color=theme.DIM)
                self._dismiss = gate.button("x", self.clear, show=False)
                gate.bind_theme(look.flat, self._dismiss)
                self._message = gate.text("")
            for tag in (self._speed, self._delay, self._backend, self._counters, self._message):
                gate.bind_font(look.small, tag)
        self._message_text = ""

    def place(self, width: int) -> None:
        gate.set_width(self.tag, width)

    def say(self, text: str, is_error: bool) -> None:
        """Show a line; an error stays until it is dismissed or replaced, anything else fades."""
        self._said_at, self._is_error, self._message_text = time.monotonic(), is_error, text
        gate.set_color(self._message, theme.WARNING if is_error else theme.TEXT)
        gate.set_text(self._message, text, 400)
        gate.set_shown(self._dismiss, True)

    def clear(self) -> None:
        self._message_text = ""
        gate.set_text(self._message, "")
        gate.set_shown(self._dismiss, False)

    def update(self, speed: str, delay: str, backend: str, counters: str, is_warning: bool) -> None:
        gate.set_text(self._speed, speed)
        gate.set_text(self._delay, delay)
        gate.set_text(self._backend, backend)
        gate.set_text(self._counters, counters)
        gate.set_color(self._counters, theme.WARNING if is_warning else theme.DIM)
        if self._message_text and not self._is_error and time.monotonic() - self._said_at > _MESSAGE_SECONDS:
            self.clear()
