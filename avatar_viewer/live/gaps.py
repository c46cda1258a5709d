"""A live stream keeps its time: sound that a device has lost is found, and silence put in its place.

After a pause blocks may come late and in a heap, with nothing lost; or some never come. Which it was is known once they come
at their own pace again, so what arrives until then is held back for a moment. Knows no device: times and samples only.
"""

from __future__ import annotations

import numpy as np

_PAUSE_SECONDS = 0.25  # without a block, which otherwise come every 10 to 40 ms
_STEADY_BLOCKS = 3  # in a row at their own pace: the heap is through
_HOLD_SECONDS = 1.0  # at most
_LEAST_SECONDS = 0.03  # missing less than this is jitter
_GAIN = 0.05  # how fast the usual follows, a block
_ODD_SECONDS, _ODD_BLOCKS = 0.1, 10  # a number this far off is false, unless so many in a row say the same
_NEW_SECONDS = 2.0  # after its start or a pause a stream states false ages, by up to a second (PulseAudio 16 by way of ALSA)


class _Usual:
    """A number that every block tells anew, with jitter, slow drift and now and then nonsense."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._odd = 0

    def follow(self, told: float) -> None:
        if self.value is None:
            self.value = told
        self._odd = self._odd + 1 if abs(told - self.value) > _ODD_SECONDS else 0
        if not 0 < self._odd < _ODD_BLOCKS:
            self.value = told if self._odd else self.value + _GAIN * (told - self.value)


class GapFiller:
    """One stream of blocks."""

    def __init__(self, rate: float, age_seconds: float) -> None:
        self._rate = rate
        self._new_age = age_seconds  # of the newest sample, until what blocks say of theirs can be believed
        self._believed_from = _NEW_SECONDS  # of the stream
        self.lost_seconds = 0.0
        self._seconds = 0.0  # passed on so far, silence included
        self._arrives, self._age = _Usual(), _Usual()  # monotonic time less place in the stream; seconds
        self._arrived: float | None = None  # the block before
        self._held: list[np.ndarray] = []
        self._held_since = 0.0
        self._steady = 0

    @property
    def captured_at(self) -> float:
        """When the last sample that was passed on was in the air; monotonic seconds."""
        assert self._arrives.value is not None
        return self._arrives.value + self._seconds - (self._new_age if self._age.value is None else self._age.value)

    def take(self, block: np.ndarray, arrived: float, age: float) -> list[np.ndarray]:  # [n] -> pieces to go on with
        """`arrived` is when the block came, `age` how long before that its last sample was in the air, as the device has it."""
        pause = 0.0 if self._arrived is None else arrived - self._arrived
        self._arrived = arrived
        if not self._held and pause < _PAUSE_SECONDS:
            pieces = self._pass([block])
            self._arrives.follow(arrived - self._seconds)
            if self._seconds > self._believed_from:
                self._age.follow(age)
            return pieces
        if self._held:
            self._steady = self._steady + 1 if pause >= 0.5 * len(block) / self._rate else 0
        else:
            self._held_since, self._steady = arrived, 0
        self._held.append(block)
        if self._steady < _STEADY_BLOCKS and arrived - self._held_since < _HOLD_SECONDS:
            return []
        held, self._held = self._held, []
        assert self._arrives.value is not None
        missing = arrived - self._arrives.value - self._seconds - sum(len(piece) for piece in held) / self._rate
        if missing > _LEAST_SECONDS:
            self.lost_seconds += missing
            held.insert(0, np.zeros(round(missing * self._rate), dtype=block.dtype))
        pieces = self._pass(held)
        self._believed_from = self._seconds + _NEW_SECONDS
        return pieces

    def _pass(self, pieces: list[np.ndarray]) -> list[np.ndarray]:
        self._seconds += sum(len(piece) for piece in pieces) / self._rate
        return pieces
