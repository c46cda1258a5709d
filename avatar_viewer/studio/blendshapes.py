"""A blendshape rig: a neutral face, named shapes, parts that ride on it, and how they pose.

Knows vertices and coefficients; knows no pictures, phones or files. Numpy throughout: a rig is authored, not trained.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..action_units import AU_NAMES, MAX_INTENSITY

# The fifteen visemes of the Oculus set, the most widespread in rigs; "sil" is the neutral face and has no shape.
VISEMES: tuple[str, ...] = ("PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "ih", "oh", "ou")
GAZE_CHANNELS: tuple[str, ...] = ("gaze_yaw", "gaze_pitch")  # radians; positive to +x and up
RIG_CHANNELS: tuple[str, ...] = AU_NAMES + VISEMES + GAZE_CHANNELS  # AUs 0..5 (to 7), visemes 0..1


@dataclass(frozen=True)
class Mesh:
    vertices: np.ndarray  # [P, 3] float32 metres
    faces: np.ndarray  # [F, 3] int32
    colors: np.ndarray  # [P, 3] float32 sRGB 0..1 albedo


@dataclass(frozen=True)
class Part:
    """What is not the face's skin: hair, brows, lashes, scalp, ears, neck, clothes, eyes, teeth, tongue, mouth bag."""

    name: str
    mesh: Mesh
    # "face": each vertex rides on its nearest face triangle; "head": still; "jaw": with the jaw's rigid motion;
    # "eye": turns about `pivot` with the gaze; "tongue": with the jaw and the visemes' tongue poses.
    attachment: str
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gloss: float = 0.0  # 0 matt .. 1 wet: eyes, teeth, lips


class Constraint(Protocol):
    """A non-linear law of the face, such as lids that slide over the eye or lips that do not cross."""

    def apply(self, vertices: np.ndarray) -> np.ndarray: ...  # [T, V, 3] -> [T, V, 3]


@dataclass(frozen=True)
class PosedHead:
    face: np.ndarray  # [V, 3] metres
    face_colors: np.ndarray  # [V, 3] sRGB: albedo with wrinkles
    parts: dict[str, np.ndarray]  # name -> [P, 3]
    transforms: dict[str, np.ndarray]  # rigid groups: name -> [4, 4] from neutral


@dataclass(frozen=True)
class BlendshapeRig:
    name: str
    face: Mesh  # the template: V vertices
    shapes: dict[str, np.ndarray]  # AU or viseme name -> [V, 3] offsets in metres at intensity 5, or at weight 1
    parts: tuple[Part, ...]
    # lips, lip_upper and lip_lower (inner lips, paired by position), eyelids, upper_face, jaw (rigid with the mandible:
    # chin and lower jaw skin), and one region an AU under its own name.
    regions: dict[str, np.ndarray]
    wrinkles: dict[str, np.ndarray] = field(default_factory=dict)  # AU -> [V] 0..1 darkening at intensity 5
    viseme_aus: dict[str, dict[str, float]] = field(default_factory=dict)  # viseme -> its projection on the AUs, 0..5
    tongue_poses: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # viseme -> (pitch rad, forward m, up m)
    constraints: tuple[Constraint, ...] = ()
