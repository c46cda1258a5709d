"""Play, pause, scrub, loop, speed, microphone; the waveform is the scrub bar, and the level meter while a microphone is heard."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ..config import SAMPLE_RATE
from ..live.session import Session
from ..live.spool import SpoolFormat, SpoolReader
from ..live.voice_chain import GATE_OFF_DB, decibels
from . import gate, theme

HEIGHT = 96
_WAVE_HEIGHT = 44
_BARS = 240
_RATES = {"1/4 x": 0.25, "1/2 x": 0.5, "3/4 x": 0.75, "1 x": 1.0, "1 1/2 x": 1.5, "2 x": 2.0}
_METER_DB = -60.0  # the left end of the level meter; full scale is the right one
_LOUD_DB, _CLIPPED = -9.0, 0.99
_FALL_DB = 1.0  # of the shown peak, a frame
_CLIP_SECONDS = 2.0  # that clipping stays in sight
_READ_PER_BAR = 2048  # samples looked at for one bar: the cost is the same for any length


class TransportPanel:
    def __init__(self, look: theme.Look, session: Session, open_sound: Callable[[], None], use_microphone: Callable[[], None]) -> None:
        self._session = session
        self._width = 1
        self._drawn: tuple | None = None
        self._dragged_to: float | None = None
        self._was_down = False
        with gate.child(height=HEIGHT, border=False, always_use_window_padding=True, no_scrollbar=True, no_scroll_with_mouse=True) as self.tag:
            with gate.row():
                self._play = gate.button("Play", session.toggle, width=72)
                gate.bind_theme(look.primary, self._play)
                gate.explain(self._play, "Play or pause the sound (Space)")
                self._time = gate.text("0:00.0 / 0:00.0")
                self._loop = gate.checkbox("Loop", False, self._set_loop)
                gate.explain(self._loop, "Begin again at the end")
                rates = gate.choice(tuple(_RATES), "1 x", lambda text: session.playback.set_rate(_RATES[text]), width=76)
                gate.explain(rates, "Speed of the sound, like a tape: the pitch follows. A recording runs at the sound's own speed.")
                self._microphone = gate.button("Microphone", use_microphone)
                gate.explain(self._microphone, "Let the head follow your voice; press again to stop (M)")
                gate.explain(gate.button("Open sound...", open_sound), "wav, flac, mp3, ogg, m4a, any rate (O)")
                self._name = gate.text("no sound", color=theme.DIM)
            with gate.column() as self._wave:
                self._canvas = gate.canvas(100, _WAVE_HEIGHT)
            self._back = gate.draw_rectangle(self._canvas, (0, 0), (100, _WAVE_HEIGHT), theme.FIELD, 4)
            middle = _WAVE_HEIGHT / 2
            self._bars = [gate.draw_line(self._canvas, (0, middle), (0, middle), theme.FAINT, 2) for _ in range(_BARS)]
            self._head = gate.draw_line(self._canvas, (0, 0), (0, _WAVE_HEIGHT), theme.TEXT, 2)
            self._level = gate.draw_rectangle(self._canvas, (0, 0), (0, 0), theme.GOOD, 3)
            self._threshold = gate.draw_line(self._canvas, (0, 0), (0, 0), theme.TEXT, 2)
        self._heights = np.zeros(_BARS)
        self._colored = -1
        self._peak_db = _METER_DB
        self._clipped_until = 0.0

    @property
    def tags(self) -> dict[str, gate.Tag]:
        """Items that a test points at."""
        return {"play": self._play, "wave": self._wave}

    def place(self, width: int) -> None:
        if width != self._width:
            self._width = width
            gate.set_size(self.tag, width, HEIGHT)
            gate.set_size(self._canvas, width - 20, _WAVE_HEIGHT)
            gate.move_rectangle(self._back, (0, 0), (width - 20, _WAVE_HEIGHT))
            self._drawn = None

    def update(self) -> None:
        session = self._session
        gate.set_label(self._play, "Pause" if session.is_playing and session.microphone is None else "Play")
        gate.set_enabled(self._play, session.microphone is None)
        gate.set_label(self._microphone, "Stop listening" if session.microphone else "Microphone")
        now = session.now()
        if session.microphone is not None:
            self._show_microphone()
        else:
            shown = now if self._dragged_to is None else self._dragged_to
            gate.set_text(self._time, f"{clock_text(shown)} / {clock_text(session.seconds)}")
            sound = session.sound
            if session.is_opening:
                gate.set_text(self._name, "opening...")
            else:
                gate.set_text(self._name, sound.name if sound else "no sound", 48)
            self._show_wave()
            self._show_head(shown)
            self._scrub()

    def _show_wave(self) -> None:
        sound = self._session.sound
        key = None if sound is None else (id(sound), round(sound.seconds_decoded, -1) if not sound.is_complete else "whole", self._width)
        if key == self._drawn:
            return
        self._drawn = key
        gate.move_rectangle(self._level, (0, 0), (0, 0))
        gate.move_line(self._threshold, (0, 0), (0, 0))
        self._heights = np.zeros(_BARS) if sound is None else wave_heights(sound.speech, sound.seconds, _BARS)
        middle, step = _WAVE_HEIGHT / 2, (self._width - 20) / _BARS
        for place, (bar, height) in enumerate(zip(self._bars, self._heights)):
            x, half = (place + 0.5) * step, max(1.0, height * (middle - 3))
            gate.move_line(bar, (x, middle - half), (x, middle + half))
        self._colored = -1

    def _show_head(self, seconds: float) -> None:
        share = min(1.0, seconds / self._session.seconds) if self._session.seconds else 0.0
        x = share * (self._width - 20)
        gate.move_line(self._head, (x, 0), (x, _WAVE_HEIGHT))
        played = int(share * _BARS)
        if played != self._colored:
            changed = range(_BARS) if self._colored < 0 else range(min(played, self._colored), max(played, self._colored) + 1)
            for place in changed:
                if place < _BARS:
                    gate.set_color(self._bars[place], theme.ACCENT if place < played else theme.FAINT)
            self._colored = played

    def _show_microphone(self) -> None:
        microphone = self._session.microphone
        assert microphone is not None
        gate.set_text(self._name, microphone.route or microphone.name or "microphone", 48)
        gate.set_text(self._time, microphone.state or "listening")
        if self._drawn != "microphone":
            self._drawn = "microphone"
            middle = _WAVE_HEIGHT / 2
            for bar in self._bars:
                gate.move_line(bar, (0, middle), (0, middle))
            gate.move_line(self._head, (0, 0), (0, 0))
        now = time.monotonic()
        if microphone.peak >= _CLIPPED:
            self._clipped_until = now + _CLIP_SECONDS
        self._peak_db = max(decibels(microphone.peak), self._peak_db - _FALL_DB)
        color = theme.RECORD if now < self._clipped_until else theme.WARNING if self._peak_db > _LOUD_DB else theme.GOOD
        gate.move_rectangle(self._level, (0, 8), (self._meter_place(self._peak_db), _WAVE_HEIGHT - 8))
        gate.fill(self._level, color if microphone.is_open else theme.FAINT)
        threshold = self._session.playback.voice.gate_db
        x = self._meter_place(threshold) if threshold > GATE_OFF_DB else 0.0
        gate.move_line(self._threshold, (x, 4), (x, _WAVE_HEIGHT - 4 if x else 4))

    def _meter_place(self, level_db: float) -> float:
        return min(1.0, max(0.0, 1.0 - level_db / _METER_DB)) * (self._width - 20)

    def _scrub(self) -> None:
        """Press or drag on the waveform to go there; the seek happens when the button is let go."""
        is_down = gate.is_button_down("left")
        if is_down and (self._dragged_to is not None or (not self._was_down and gate.is_hovered(self._wave))):
            left, _, width, _ = gate.item_rectangle(self._wave)
            share = (gate.mouse_position()[0] - left) / max(1.0, width)
            self._dragged_to = min(max(share, 0.0), 1.0) * self._session.seconds
        elif self._dragged_to is not None:
            self._session.seek(self._dragged_to)
            self._dragged_to = None
        self._was_down = is_down

    def set_loop(self, is_looping: bool) -> None:
        gate.set_flag(self._loop, is_looping)
        self._set_loop(is_looping)

    def _set_loop(self, is_looping: bool) -> None:
        self._session.is_looping = is_looping


def clock_text(seconds: float) -> str:
    """Minutes and seconds: 1:23.4."""
    tenths = int(max(0.0, seconds) * 10 + 0.5)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def wave_heights(spool: SpoolFormat, seconds: float, bars: int) -> np.ndarray:  # -> [bars] 0..1
    """Peaks of `bars` pieces of a sound, the loudest 1."""
    reader = SpoolReader(spool)
    try:
        per_bar = max(1.0, seconds * SAMPLE_RATE / bars)
        length = int(min(per_bar, _READ_PER_BAR))
        peaks = np.array([np.abs(reader.read(int(place * per_bar), length)).max(initial=0.0) for place in range(bars)])
    finally:
        reader.close()
    return peaks / max(0.05, float(peaks.max(initial=0.0)))
