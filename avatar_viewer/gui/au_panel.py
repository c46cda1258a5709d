"""Seventeen rows, one an action unit, grouped as on a face: offset, gain, mute, solo, and a bar that shows what the face does now."""

from __future__ import annotations

from ..action_units import ACTION_UNITS, AU_GROUPS, MAX_INTENSITY
from . import gate, theme
from .edit_state import MAX_GAIN, EditState

_BAR_WIDTH, _BAR_HEIGHT = 44, 18
_NAME_WIDTH = 152
_OFFSET, _GAIN = "offset", "gain"  # what the sliders set; there is room for one of them in a row


class AUPanel:
    """Sliders add to (or take from) what voice and prompt ask for, -5 to 5; gains scale the voice's share."""

    def __init__(self, look: theme.Look, edits: EditState, width: int) -> None:
        self._edits = edits
        self._sliders: dict[int, gate.Tag] = {}
        self._gains: dict[int, gate.Tag] = {}
        self._mutes: dict[int, gate.Tag] = {}
        self._solos: dict[int, gate.Tag] = {}
        self._bars: dict[int, tuple[gate.Tag, gate.Tag]] = {}
        self._shown: dict[int, tuple[int, int]] = {}
        with gate.row():
            gate.bind_font(look.strong, gate.text("Action units"))
            reset = gate.button("Reset all", self.reset)
            gate.explain(reset, "All seventeen sliders to 0 and gains to 1, nothing muted or solo, no over-range")
            which = gate.choice((_OFFSET, _GAIN), _OFFSET, self._show_sliders_of, width=76)
            gate.explain(which, "What the sliders set. offset: added to what voice and prompt ask for. gain: scales what the voice asks for.")
            self._over_range = gate.checkbox("Over-range", False, edits.set_over_range)
            gate.explain(self._over_range, "Lets the face go up to 7 instead of 5, for exaggeration")
        slider_width = max(70, width - _NAME_WIDTH - _BAR_WIDTH - 118)
        for group in AU_GROUPS:
            with gate.section(group):
                for index, unit in enumerate(ACTION_UNITS):
                    if unit.group == group:
                        self._add_row(look, index, slider_width)

    @property
    def tags(self) -> dict[str, gate.Tag]:
        """Items that a test points at."""
        return {ACTION_UNITS[index].code: slider for index, slider in self._sliders.items()}

    def _add_row(self, look: theme.Look, index: int, slider_width: int) -> None:
        unit = ACTION_UNITS[index]
        with gate.row(horizontal_spacing=6):
            name = gate.button(f"{unit.code[2:]}  {unit.name}", lambda: self.reset_one(index), width=_NAME_WIDTH)
            gate.bind_theme(look.flat, name)
            gate.bind_font(look.small, name)
            gate.explain(name, f"{unit.code} {unit.name}. {unit.tooltip}. Press to reset.")
            slider = gate.slider(
                "", -MAX_INTENSITY, MAX_INTENSITY, 0.0, lambda value: self._edits.set_offset(index, value), width=slider_width, format="%+.1f"
            )
            gate.explain(slider, f"{unit.code}: adds to what the voice and the prompt ask for, -5 to 5; Ctrl-click to type")
            gain = gate.slider(
                "", 0.0, MAX_GAIN, 1.0, lambda value: self._edits.set_gain(index, value), width=slider_width, format="x %.2f", show=False
            )
            gate.explain(gain, f"{unit.code} gain: scales what the voice asks for, 0 to {MAX_GAIN:g}; Ctrl-click to type")
            mute = gate.checkbox("M", False, lambda value: self._edits.set_mute(index, value))
            gate.explain(mute, f"Mute {unit.code}: keep it at 0, whatever asks for it")
            solo = gate.checkbox("S", False, lambda value: self._edits.set_solo(index, value))
            gate.explain(solo, f"Solo {unit.code}: only this one and others that are solo; the rest stays at 0")
            with gate.column() as holder:
                canvas = gate.canvas(_BAR_WIDTH, _BAR_HEIGHT + 4)
            gate.draw_rectangle(canvas, (0, 6), (_BAR_WIDTH, _BAR_HEIGHT), theme.FIELD, 3)
            voice = gate.draw_rectangle(canvas, (0, 6), (0, 9), theme.DIM, 2)
            face = gate.draw_rectangle(canvas, (0, 9), (0, _BAR_HEIGHT), theme.ACCENT, 2)
            gate.explain(holder, f"{unit.code} now, 0 to 5. Grey: what the voice asks for. Blue: what the face does.")
        self._sliders[index], self._gains[index], self._bars[index] = slider, gain, (voice, face)
        self._mutes[index], self._solos[index] = mute, solo

    def _show_sliders_of(self, which: str) -> None:
        for index in self._sliders:
            gate.set_shown(self._sliders[index], which == _OFFSET)
            gate.set_shown(self._gains[index], which == _GAIN)

    def reset(self) -> None:
        self._edits.reset_sliders()
        gate.set_flag(self._over_range, False)
        for index in self._sliders:
            self._show_reset(index)

    def reset_one(self, index: int) -> None:
        self._edits.reset_slider(index)
        self._show_reset(index)

    def _show_reset(self, index: int) -> None:
        gate.set_number(self._sliders[index], 0.0)
        gate.set_number(self._gains[index], 1.0)
        gate.set_flag(self._mutes[index], False)
        gate.set_flag(self._solos[index], False)

    def update(self, voice_codes: list[float], face_codes: list[float]) -> None:
        """Show both, 0 to 5 (17 each)."""
        for index, (voice, face) in self._bars.items():
            shown = tuple(round(min(max(codes[index] / MAX_INTENSITY, 0.0), 1.0) * _BAR_WIDTH) for codes in (voice_codes, face_codes))
            if self._shown.get(index) != shown:
                self._shown[index] = shown
                gate.move_rectangle(voice, (0, 6), (shown[0], 9))
                gate.move_rectangle(face, (0, 9), (shown[1], _BAR_HEIGHT))
