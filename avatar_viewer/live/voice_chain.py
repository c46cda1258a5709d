"""What is done to a voice before anything hears it: gain, then a noise gate. Plain numpy, block by block, any block length.

The gate opens at its threshold and closes 6 dB below it, after the voice has been quiet for a while, so that the ends of
words stay. Knows no device and no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MIN_GAIN_DB, MAX_GAIN_DB = -24.0, 36.0
GATE_OFF_DB = -80.0  # a gate at or below this level is always open
_HYSTERESIS_DB = 6.0
_PIECE_SECONDS = 0.005  # the gate decides once a piece
_OPENING_SECONDS, _HOLD_SECONDS, _CLOSING_SECONDS = 0.005, 0.25, 0.1


@dataclass(frozen=True)
class VoiceSettings:
    """What the artist chose for the microphone."""

    gain_db: float = 0.0
    gate_db: float = GATE_OFF_DB  # peak level below which there is silence


def decibels(amplitude: float) -> float:
    """Of full scale; -120 for silence."""
    return 20.0 * math.log10(max(amplitude, 1e-6))


class VoiceChain:
    """Gain and gate of one stream of samples."""

    def __init__(self, rate: int) -> None:
        self._piece = max(1, round(_PIECE_SECONDS * rate))
        self.settings = VoiceSettings()
        self.is_open = True
        self._openness = 1.0
        self._quiet_seconds = 0.0
        self._seconds_a_sample = 1.0 / rate

    def process(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [n] float32 -> the same, gated; and before the gate
        """The voice as it is to be heard, within -1..1; NaN and infinity become silence."""
        samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
        amplified = np.clip(samples * np.float32(10.0 ** (self.settings.gain_db / 20.0)), -1.0, 1.0).astype(np.float32)
        if self.settings.gate_db <= GATE_OFF_DB:
            self.is_open, self._openness, self._quiet_seconds = True, 1.0, 0.0
            return amplified, amplified
        gated = amplified.copy()
        for start in range(0, len(gated), self._piece):
            piece = gated[start : start + self._piece]
            seconds = len(piece) * self._seconds_a_sample
            self._decide(decibels(float(np.abs(piece).max())), seconds)
            span = _OPENING_SECONDS if self.is_open else -_CLOSING_SECONDS
            end = min(1.0, max(0.0, self._openness + seconds / span))
            piece *= np.linspace(self._openness, end, len(piece), dtype=np.float32)
            self._openness = end
        return gated, amplified

    def _decide(self, peak_db: float, seconds: float) -> None:
        threshold = self.settings.gate_db - (_HYSTERESIS_DB if self.is_open else 0.0)
        if peak_db >= threshold:
            self.is_open, self._quiet_seconds = True, 0.0
        else:
            self._quiet_seconds += seconds
            self.is_open = self.is_open and self._quiet_seconds < _HOLD_SECONDS
