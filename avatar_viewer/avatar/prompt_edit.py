"""A prompt's reading becomes an edit, and several readings become one.

Knows what was read, not how; the sliders' part of an edit comes from outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..errors import InputError
from ..networks.prompt_reading import PromptReading
from ..types import AUEdit, ensure_range
from .modulation import MAX_ENHANCE, MAX_STRENGTH, MODES, SPEECH_COLUMNS

_DENIED_SHARE = 0.85  # of the voice's own share of an AU that the prompt denies


def prompt_edit(
    reading: PromptReading,
    *,
    strength: float = 1.0,
    enhance: float = 1.0,
    suppress: float = 0.3,
    mode: str = "blend",
    base: AUEdit | None = None,
) -> AUEdit:
    """The edit that a prompt asks for; gain, offset, mute and limit come from `base` (the sliders).

    What the prompt denies ("not smiling") is turned down in the voice's own codes, except for the speech AUs.
    A reading without action units gives strength 0, so that the "paper" mode too leaves the voice alone.
    """
    ensure_range("strength", strength, 0.0, MAX_STRENGTH)
    ensure_range("enhance", enhance, 0.0, MAX_ENHANCE)
    ensure_range("suppress", suppress, 0.0, 1.0)
    if mode not in MODES:
        raise InputError(f"unknown modulation mode {mode!r}; use one of: {', '.join(MODES)}")
    active = reading.active.to(torch.float32)
    base = base or AUEdit()
    held_back = min(1.0, float(strength)) * _DENIED_SHARE * reading.denied.to(torch.float32)
    held_back[SPEECH_COLUMNS] = 0
    return replace(
        base,
        active=active,
        gain=base.gain * (1 - held_back),
        intensity=torch.where(active > 0, reading.intensity, torch.zeros_like(reading.intensity)),
        enhance=float(enhance),
        suppress=float(suppress),
        strength=float(strength) if bool((active > 0).any()) else 0.0,
        mode=mode,
    )


def blend_readings(readings: Sequence[PromptReading], weights: Sequence[float] | None = None) -> PromptReading:
    """Several prompts at once: intensities and probabilities by weight, and every AU that any of them asks for.

    Weights are shares: they are divided by their sum where that exceeds 1, so two prompts at 0.3 stay faint.
    """
    if not readings:
        raise InputError("no prompt to blend; give at least one")
    shares = [1.0 / len(readings)] * len(readings) if weights is None else [float(w) for w in weights]
    if len(shares) != len(readings):
        raise InputError(f"{len(readings)} prompts but {len(shares)} weights; give one weight a prompt")
    if not all(math.isfinite(w) and w >= 0 for w in shares):
        raise InputError(f"prompt weights are {shares}; use numbers of 0 or more")
    total = max(1.0, sum(shares))
    shares = [w / total for w in shares]
    active = torch.stack([r.active.to(torch.float32) * (w > 0) for r, w in zip(readings, shares)]).amax(dim=0)
    intensity = sum(w * r.intensity * r.active for r, w in zip(readings, shares))
    probability = sum(w * r.probability for r, w in zip(readings, shares))
    ignored = tuple(dict.fromkeys(word for r in readings for word in r.ignored))
    return PromptReading(
        active=active > 0,
        probability=probability,
        intensity=intensity,
        ignored=ignored,
        truncated=" ".join(r.truncated for r in readings if r.truncated),
        note="; ".join(dict.fromkeys(r.note for r in readings if r.note)),
        denied=torch.stack([r.denied & (w > 0) for r, w in zip(readings, shares)]).all(dim=0),
    )
