"""The shortcut sheet, and errors too long for the bottom line. A dialog loses nothing: closing it changes nothing."""

from __future__ import annotations

from . import gate, theme
from .shortcuts import MOUSE, SHORTCUTS


class ShortcutSheet:
    def __init__(self, look: theme.Look) -> None:
        with gate.window("Keys and mouse", modal=True, show=False, width=420, no_resize=True, pos=(200, 90)) as self._window:
            for keys, about in [(s.keys, s.about) for s in SHORTCUTS] + list(MOUSE):
                with gate.row():
                    gate.bind_font(look.strong, gate.text(keys.ljust(14)))
                    gate.text(about, color=theme.DIM)
            gate.text("Keys are silent while you type.", color=theme.DIM)
            gate.button("Close", self.close, width=90)
        self.is_shown = False

    def toggle(self) -> None:
        self.is_shown = not self.is_shown
        gate.set_shown(self._window, self.is_shown)

    def close(self) -> None:
        self.is_shown = False
        gate.set_shown(self._window, False)


class ErrorDialog:
    def __init__(self) -> None:
        with gate.window("Something needs attention", modal=True, show=False, width=620, no_resize=False, pos=(160, 140)) as self._window:
            self._text = gate.text("", wrap=590)
            gate.button("OK", self.close, width=90)

    def show(self, text: str) -> None:
        gate.set_text(self._text, text, 3000)
        gate.set_shown(self._window, True)

    def close(self) -> None:
        gate.set_shown(self._window, False)
