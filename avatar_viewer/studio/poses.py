"""Faces that the studio asks for: poses that bare hidden surfaces, every action unit by itself, the paper's emotions.

Knows rig coefficients by name; knows no mesh, picture or file.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..action_units import AU_NAMES
from .blendshapes import RIG_CHANNELS

# What the neutral face hides: lids, the insides of the lips, teeth, tongue, the mouth, the sides of the eyes.
# Little wrinkling on purpose: the one set of colours is fitted to all of these.
HIDDEN_SURFACE_POSES: dict[str, dict[str, float]] = {
    "jaw_wide": {"AU25": 3.0, "AU26": 5.0},
    "open_aa": {"aa": 1.0},
    "lids_closed": {"AU45": 5.0},
    "lids_half": {"AU45": 2.5},
    "eyes_wide": {"AU05": 4.0, "AU01": 1.5, "AU02": 2.0},
    "teeth_bared": {"AU10": 2.5, "AU12": 2.5, "AU25": 4.5},
    "smile_open": {"AU12": 4.0, "AU25": 3.0, "AU26": 1.5},
    "tongue_out": {"TH": 1.0, "AU26": 2.5, "AU25": 2.0},
    "pucker": {"ou": 1.0},
    "lips_pressed": {"AU24": 4.0},
    "gaze_left": {"gaze_yaw": 0.45, "gaze_pitch": 0.15},
    "gaze_right": {"gaze_yaw": -0.45, "gaze_pitch": -0.2},
}

# The emotions of the paper's gallery (supplement section 7), as FACS describes them.
EMOTION_AUS: dict[str, dict[str, float]] = {
    "happiness": {"AU06": 4.0, "AU12": 4.0, "AU25": 1.5},
    "sadness": {"AU01": 4.0, "AU04": 2.0, "AU15": 4.0, "AU17": 1.5},
    "anger": {"AU04": 4.5, "AU05": 2.0, "AU07": 3.5, "AU23": 3.5},
    "fear": {"AU01": 4.0, "AU02": 3.0, "AU04": 3.0, "AU05": 4.5, "AU25": 2.0, "AU26": 1.5},
    "disgust": {"AU09": 4.0, "AU10": 3.5, "AU15": 2.0, "AU17": 2.0},
    "confusion": {"AU04": 3.0, "AU07": 2.0, "AU14": 1.5, "AU23": 1.5},
    "worry": {"AU01": 4.0, "AU04": 3.0, "AU24": 1.5},
    "anxiety": {"AU01": 3.0, "AU02": 1.5, "AU04": 2.5, "AU05": 2.0, "AU24": 2.5},
    "disappointment": {"AU01": 2.0, "AU04": 1.0, "AU15": 3.0, "AU17": 2.5},
    "shyness": {"AU06": 2.0, "AU12": 1.8, "AU24": 1.5, "AU45": 1.0, "gaze_pitch": -0.25, "gaze_yaw": 0.2},
}


def coefficients(named: Mapping[str, float]) -> np.ndarray:  # -> [C] float32
    """A rig coefficient vector from channel names; `KeyError` for a name that no rig has."""
    values = np.zeros(len(RIG_CHANNELS), dtype=np.float32)
    for name, value in named.items():
        if name not in RIG_CHANNELS:
            raise KeyError(name)
        values[RIG_CHANNELS.index(name)] = value
    return values


def action_unit_sweep(intensities: tuple[float, ...]) -> np.ndarray:  # -> [T, C] float32
    """Each AU alone at each intensity, then each emotion of the paper, mute and speaking: what the opacity decoder learns its
    wrinkles from. One that has never seen a smile with an open jaw invents folds for it."""
    frames = [coefficients({name: intensity}) for name in AU_NAMES for intensity in intensities]
    frames += [coefficients(aus) for aus in EMOTION_AUS.values()]
    frames += [coefficients({**aus, "AU25": 3.0, "AU26": 2.5}) for aus in EMOTION_AUS.values()]
    return np.stack(frames)
