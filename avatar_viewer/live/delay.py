"""How far the picture is behind a live voice, part by part, and the settings between safest and fastest.

The delay is constant: a picture is shown when its moment is due, not when it happens to be ready.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import LOW_DELAY_STREAM, StreamContext


@dataclass(frozen=True)
class DelaySetting:
    name: str
    stream: StreamContext | None  # None: the avatar's own, for which it is best
    compute_seconds: float  # allowed for capture's blocks, the networks and a busy machine, beyond hop and look-ahead


DELAY_SETTINGS = (
    DelaySetting("safest", None, 0.25),
    DelaySetting("balanced", None, 0.12),
    DelaySetting("fastest", LOW_DELAY_STREAM, 0.08),
)
DEFAULT_DELAY = DELAY_SETTINGS[1]


def find_delay(name: str) -> DelaySetting:
    return next(setting for setting in DELAY_SETTINGS if setting.name == name)


@dataclass(frozen=True)
class DelayParts:
    """From a sound in the air to the picture of it, in milliseconds."""

    capture: float  # the device's own, as it states it
    hop: float
    lookahead: float
    compute: float  # what is allowed, not what is used: so the sum is constant
    display: float  # drawing and showing

    @property
    def total(self) -> float:
        return self.capture + self.hop + self.lookahead + self.compute + self.display

    def __str__(self) -> str:
        parts = {"capture": self.capture, "hop": self.hop, "look-ahead": self.lookahead, "compute": self.compute, "display": self.display}
        return " + ".join(f"{name} {value:.0f}" for name, value in parts.items()) + f" = {self.total:.0f} ms"
