"""What the artist has set: prompt, strengths, sliders; plain values that become one `AUEdit`. Knows no window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..action_units import ACTION_UNITS, AU_NAMES, MAX_INTENSITY, MAX_OVER_RANGE, NUM_AUS
from ..avatar.modulation import MAX_ENHANCE, MAX_STRENGTH
from ..avatar.prompt_edit import prompt_edit
from ..types import AUEdit

if TYPE_CHECKING:
    from ..networks.prompt_reading import PromptReading

HISTORY_LENGTH = 20
PROMPT_LIMIT = 512  # characters
MAX_GAIN = 3.0
DEFAULT_SUPPRESS = AUEdit().suppress


class EditState:
    """Sliders and prompt as they stand. `edit` is built anew only when something changed."""

    def __init__(self) -> None:
        self.history: list[str] = []
        self.reset()

    def reset(self) -> None:
        self.reset_prompt()
        self.reset_sliders()

    def reset_prompt(self) -> None:
        self.prompt = ""
        self.reading: PromptReading | None = None
        self.strength = 1.0
        self.enhance = 1.0
        self.suppress = DEFAULT_SUPPRESS
        self.mode = "blend"
        self._edit: AUEdit | None = None

    def reset_sliders(self) -> None:
        self.offsets = [0.0] * NUM_AUS
        self.gains = [1.0] * NUM_AUS
        self.mutes = [False] * NUM_AUS
        self.solos = [False] * NUM_AUS
        self.is_over_range = False
        self._edit = None

    def reset_slider(self, index: int) -> None:
        """One action unit as it was before anything was set."""
        self.offsets[index], self.gains[index] = 0.0, 1.0
        self.mutes[index] = self.solos[index] = False
        self._edit = None

    def set_prompt(self, text: str) -> bool:
        """Take the text as the prompt; False where it is the one that stands."""
        text = " ".join(text.split())[:PROMPT_LIMIT]
        if text == self.prompt:
            return False
        self.prompt = text
        if text:
            self.history = [text, *(old for old in self.history if old != text)][:HISTORY_LENGTH]
        else:
            self.set_reading(None)
        return True

    def set_reading(self, reading: PromptReading | None) -> None:
        self.reading = reading
        self._edit = None

    def set_strength(self, value: float) -> None:
        self.strength = min(max(value, 0.0), MAX_STRENGTH)
        self._edit = None

    def set_enhance(self, value: float) -> None:
        self.enhance = min(max(value, 0.0), MAX_ENHANCE)
        self._edit = None

    def set_suppress(self, value: float) -> None:
        self.suppress = min(max(value, 0.0), 1.0)
        self._edit = None

    def set_mode(self, mode: str) -> None:
        self.mode = mode
        self._edit = None

    def set_offset(self, index: int, value: float) -> None:
        self.offsets[index] = min(max(value, -MAX_INTENSITY), MAX_INTENSITY)
        self._edit = None

    def set_gain(self, index: int, value: float) -> None:
        self.gains[index] = min(max(value, 0.0), MAX_GAIN)
        self._edit = None

    def set_solo(self, index: int, is_solo: bool) -> None:
        """While any action unit is solo, all others are mute."""
        self.solos[index] = is_solo
        self._edit = None

    def set_over_range(self, is_over_range: bool) -> None:
        """Intensities up to 7 instead of 5."""
        self.is_over_range = is_over_range
        self._edit = None

    @property
    def silenced(self) -> list[bool]:
        """What stays at 0: muted, or not among those that are solo."""
        has_solo = any(self.solos)
        return [is_muted or (has_solo and not is_solo) for is_muted, is_solo in zip(self.mutes, self.solos)]

    def set_mute(self, index: int, is_muted: bool) -> None:
        self.mutes[index] = is_muted
        self._edit = None

    @property
    def edit(self) -> AUEdit:
        if self._edit is None:
            sliders = AUEdit(
                offset=torch.tensor(self.offsets), mute=torch.tensor([float(m) for m in self.silenced]), gain=torch.tensor(self.gains),
                limit=MAX_OVER_RANGE if self.is_over_range else MAX_INTENSITY,
                enhance=self.enhance, suppress=self.suppress, strength=self.strength, mode=self.mode,
            )  # fmt: skip
            self._edit = sliders
            if self.reading is not None:
                self._edit = prompt_edit(
                    self.reading, strength=self.strength, enhance=self.enhance, suppress=self.suppress, mode=self.mode, base=sliders
                )
        return self._edit


def describe_reading(reading: PromptReading) -> str:
    """The action units that a prompt was read as, strongest first: "Lip corner puller 2.1, Cheek raiser 1.4"."""
    found = [(float(reading.intensity[k]), k) for k in range(NUM_AUS) if bool(reading.active[k])]
    if not found:
        return "no action units found; the voice stays as it is"
    return ", ".join(f"{AU_NAMES[k]} {ACTION_UNITS[k].name.lower()} {value:.1f}" for value, k in sorted(found, reverse=True))


def describe_leftovers(reading: PromptReading) -> str:
    """What of a prompt had no part in the reading, or nothing."""
    parts = []
    if reading.ignored:
        parts.append("ignored: " + ", ".join(reading.ignored))
    if reading.truncated:
        parts.append("too long, cut off: " + reading.truncated)
    if reading.note:
        parts.append(reading.note)
    return "; ".join(parts)
