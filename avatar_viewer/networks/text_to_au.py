"""A prompt becomes action units: CLIP text tower, adapter, classifier and intensity head (only home of open_clip)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PromptReading:
    """What was found in a prompt, and what was not understood."""

    active: Tensor  # [17] bool: y of the paper
    probability: Tensor  # [17] 0..1
    intensity: Tensor  # [17] 0..5, 0 where not active
    ignored: tuple[str, ...]  # words that had no part in the answer
    truncated: str  # the text past the tower's 77 tokens, or ""
    note: str = ""  # one line to show beside it, or ""
