"""The prompt box: what to express, how strongly, and what was understood."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..avatar.modulation import MAX_ENHANCE, MAX_STRENGTH, MODES
from ..live.session import Session
from . import gate, theme
from .edit_state import PROMPT_LIMIT, EditState, describe_leftovers, describe_reading

_DEBOUNCE_SECONDS = 0.7  # after the last key, so that a prompt is read while one still thinks


class PromptPanel:
    def __init__(self, look: theme.Look, session: Session, edits: EditState, width: int) -> None:
        self._session, self._edits = session, edits
        self._typed = ""
        self._typed_at = 0.0
        self._wants_focus = False
        self._history_shown: list[str] = []
        gate.bind_font(look.strong, gate.text("Expression"))
        self._box = gate.text_box("a shy half-smile", self._enter, width=width)
        gate.explain(self._box, f"Say what the face should express, up to {PROMPT_LIMIT} characters; Enter applies, Esc leaves (Ctrl+/)")
        with gate.row():
            gate.explain(gate.button("Apply", lambda: self._enter(gate.get_text(self._box))), "Read the prompt now (Enter)")
            gate.explain(gate.button("Clear", self.clear), "No prompt: the voice alone")
            self._history = gate.choice([], "", self._recall, width=width - 140)
            gate.explain(self._history, "Earlier prompts")
        self._reading = gate.text("", wrap=width, color=theme.DIM)
        self._leftovers = gate.text("", wrap=width, color=theme.WARNING, show=False)
        for tag in (self._reading, self._leftovers):
            gate.bind_font(look.small, tag)
        self._sliders: list[tuple[gate.Tag, Callable[[], float]]] = []
        self._slider("Strength", 0, MAX_STRENGTH, lambda: edits.strength, edits.set_strength, width, "How much of the prompt, 0 to 2; 1 is as read")
        self._slider("Enhance", 0, MAX_ENHANCE, lambda: edits.enhance, edits.set_enhance, width, "Scales what the prompt asks for (alpha of the paper)")
        self._slider("Suppress", 0, 1, lambda: edits.suppress, edits.set_suppress, width, "Fades what the prompt does not ask for (beta of the paper)")
        with gate.row():
            mode = gate.choice(MODES, edits.mode, edits.set_mode, width=120)
            gate.text("Mode")
        gate.explain(mode, "blend: moves towards the prompt, can add what the voice lacks. paper: multiplies the voice, as published.")
        self._mode = mode

    @property
    def tags(self) -> dict[str, gate.Tag]:
        """Items that a test points at."""
        return {"prompt": self._box}

    def _slider(self, label, low, high, get, set_value, width: int, about: str) -> None:
        tag = gate.slider(label, low, high, get(), set_value, width=width - 90)
        gate.explain(tag, about)
        self._sliders.append((tag, get))

    def type_prompt(self, text: str) -> None:
        """Set the prompt as if it had been typed and entered."""
        gate.set_text(self._box, text, PROMPT_LIMIT)
        self._enter(text)

    def focus(self) -> None:
        gate.focus(self._box)

    def keep_text(self) -> None:
        """After Esc: the toolkit takes back what was typed since the cursor came, but leaving the box is no undo."""
        gate.set_text(self._box, self._typed, PROMPT_LIMIT)

    def clear(self) -> None:
        gate.set_text(self._box, "")
        self._enter("")

    def show_values(self) -> None:
        """After a reset: the sliders follow the state."""
        for tag, get in self._sliders:
            gate.set_number(tag, get())

    def update(self) -> None:
        text = gate.get_text(self._box)
        if text != self._typed:
            self._typed, self._typed_at = text, time.monotonic()
        elif text.strip() != self._edits.prompt and time.monotonic() - self._typed_at > _DEBOUNCE_SECONDS:
            self._enter(text)
        if self._session.reading is not self._edits.reading and self._edits.prompt:
            self._edits.set_reading(self._session.reading)
            self._show_reading()
        if self._edits.history != self._history_shown:
            self._history_shown = list(self._edits.history)
            gate.set_choices(self._history, self._history_shown)

    def _enter(self, text: str) -> None:
        self._typed = gate.get_text(self._box)
        if not self._edits.set_prompt(text):
            return
        if self._edits.prompt:
            is_read = self._session.set_prompt(self._edits.prompt)
            gate.set_text(self._reading, "reading..." if is_read else "this avatar cannot read prompts")
        else:
            self._session.forget_prompt()
            self._show_reading()

    def _recall(self, text: str) -> None:
        gate.set_text(self._box, text, PROMPT_LIMIT)
        self._enter(text)

    def _show_reading(self) -> None:
        reading = self._edits.reading
        gate.set_text(self._reading, describe_reading(reading) if reading else "")
        leftovers = describe_leftovers(reading) if reading else ""
        gate.set_text(self._leftovers, leftovers, 300)
        gate.set_shown(self._leftovers, bool(leftovers))
