"""What a voice cannot tell: when the eyes blink and where they look. Seeded pure functions of time.

Time is cut into cells; each cell draws its own event from (seed, cell). So a seek, a replay and any chunking see the same
blinks, nothing has to be remembered, and an hour costs no memory. Knows no voice and no face.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..action_units import MAX_INTENSITY

BLINK_CELL_SECONDS = 3.4  # one blink a cell: about 18 a minute, what people do in conversation
CLOSING_SECONDS, CLOSED_SECONDS, OPENING_SECONDS = 0.08, 0.06, 0.16  # closed for longer than a frame at 25 fps
DOUBLE_BLINK_SHARE = 0.12
GAZE_CELL_SECONDS = 1.3
SACCADE_SECONDS = 0.05
AT_VIEWER_SHARE = 0.45  # of the glances, so that contact is kept
GAZE_SPREAD = (0.045, 0.025)  # radians of yaw and pitch
_BLINK, _GAZE = 1, 2  # streams of random numbers


def blink_codes(seed: int, seconds: np.ndarray) -> Tensor:  # [T] -> [T] 0..5
    """Intensity of AU45 at each time."""
    closed = np.zeros(len(seconds))
    for cell in _cells(seconds, BLINK_CELL_SECONDS):
        rng = np.random.default_rng((seed, _BLINK, cell))
        onset = (cell + rng.uniform(0.1, 0.75)) * BLINK_CELL_SECONDS
        depth = rng.uniform(0.92, 1.0)
        closed = np.maximum(closed, depth * _blink(seconds - onset))
        if rng.random() < DOUBLE_BLINK_SHARE:
            closed = np.maximum(closed, depth * _blink(seconds - onset - 0.38))
    return torch.from_numpy(closed * MAX_INTENSITY).float()


def gaze_angles(seed: int, seconds: np.ndarray) -> Tensor:  # [T] -> [T, 2] radians
    """Yaw and pitch of small saccades, most of them back to the viewer."""
    gaze = np.zeros((len(seconds), 2))
    for cell in _cells(seconds, GAZE_CELL_SECONDS):
        onset, target = _glance(seed, cell)
        _, before = _glance(seed, cell - 1)
        inside = np.floor(seconds / GAZE_CELL_SECONDS).astype(int) == cell
        moved = _smoothstep((seconds - onset) / SACCADE_SECONDS)[:, None]
        gaze[inside] = (before + moved * (target - before))[inside]
    return torch.from_numpy(gaze).float()


def _cells(seconds: np.ndarray, length: float) -> range:
    """Cells whose event can be seen at these times: an event may outlast its cell, but not the next one."""
    if len(seconds) == 0:
        return range(0)
    first, last = np.floor(seconds.min() / length), np.floor(seconds.max() / length)
    return range(max(0, int(first) - 1), int(last) + 1)


def _blink(since_onset: np.ndarray) -> np.ndarray:
    closing = _smoothstep(since_onset / CLOSING_SECONDS)
    return closing * (1 - _smoothstep((since_onset - CLOSING_SECONDS - CLOSED_SECONDS) / OPENING_SECONDS))


def _glance(seed: int, cell: int) -> tuple[float, np.ndarray]:
    """When the eyes move within a cell, and where to; before the first cell they rest on the viewer."""
    if cell < 0:
        return 0.0, np.zeros(2)
    rng = np.random.default_rng((seed, _GAZE, cell))
    onset = (cell + rng.uniform(0.1, 0.9)) * GAZE_CELL_SECONDS
    away = np.clip(rng.normal(0.0, GAZE_SPREAD), -2.5 * np.array(GAZE_SPREAD), 2.5 * np.array(GAZE_SPREAD))
    return onset, away if rng.random() > AT_VIEWER_SHARE else np.zeros(2)


def _smoothstep(u: np.ndarray) -> np.ndarray:
    u = np.clip(u, 0.0, 1.0)
    return u * u * (3 - 2 * u)
