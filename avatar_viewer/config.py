"""Settings shared by more than one room: small frozen dataclasses, each field with its unit."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_RATE = 16_000  # Hz, all sound inside the product
FEATURE_HOP = 320  # samples between two HuBERT values: 20 ms
FEATURE_FIELD = 400  # samples that one HuBERT value sees: 25 ms


@dataclass(frozen=True)
class StreamContext:
    """How far the speech path sees; obeyed by every layer, in training and in use.

    A hop covers `hop_ms` of sound and is computed once `lookahead_ms` more has been heard.
    """

    hop_ms: int = 200
    lookahead_ms: int = 80

    @property
    def hop_samples(self) -> int:
        return self.hop_ms * SAMPLE_RATE // 1000

    @property
    def lookahead_samples(self) -> int:
        return self.lookahead_ms * SAMPLE_RATE // 1000

    @property
    def hop_features(self) -> int:
        """Speech features a hop."""
        return self.hop_samples // FEATURE_HOP

    @property
    def lookahead_features(self) -> int:
        """Speech features after the hop whose whole field lies within the look-ahead."""
        return max(0, (self.lookahead_samples - (FEATURE_FIELD - FEATURE_HOP)) // FEATURE_HOP)

    def hop_frames(self, fps: float) -> int:
        """Motion frames a hop; `ValueError` where `fps` does not divide the hop."""
        frames = self.hop_ms * fps / 1000
        if frames != int(frames):
            raise ValueError(f"a hop of {self.hop_ms} ms holds {frames} frames at {fps} fps; choose a hop of whole frames")
        return int(frames)


DEFAULT_STREAM = StreamContext()
LOW_DELAY_STREAM = StreamContext(hop_ms=80, lookahead_ms=80)
