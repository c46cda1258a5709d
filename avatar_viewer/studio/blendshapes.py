"""A blendshape rig: a neutral face, named shapes, parts that ride on it, and how they pose.

Knows vertices and coefficients; knows no pictures, phones or files. Numpy throughout: a rig is authored, not trained.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from ..action_units import AU_NAMES, MAX_INTENSITY
from ..errors import InputError

# The fifteen visemes of the Oculus set, the most widespread in rigs; "sil" is the neutral face and has no shape.
VISEMES: tuple[str, ...] = ("PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "ih", "oh", "ou")
GAZE_CHANNELS: tuple[str, ...] = ("gaze_yaw", "gaze_pitch")  # radians; positive to +x and up
RIG_CHANNELS: tuple[str, ...] = AU_NAMES + VISEMES + GAZE_CHANNELS  # AUs 0..5 (to 7), visemes 0..1
# What a full wrinkle leaves of the albedo: light that skin scatters into a fold comes out red, never grey.
WRINKLE_TINT = np.array([0.66, 0.43, 0.37], dtype=np.float32)
_FRAMES_AT_ONCE = 64  # bounds the memory of hours of performance


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
    # 0 opaque .. 1: how far light that reaches it spreads within it and its surroundings. Enamel and wet red tissue glow in
    # an open mouth whose depth few rays find; traced as if they were plaster they are grey and black. No light, no glow.
    translucency: float = 0.0


class Constraint(Protocol):
    """A non-linear law of the face, such as lids that slide over the eye or lips that do not cross."""

    def apply(self, vertices: np.ndarray) -> np.ndarray: ...  # [T, V, 3] -> [T, V, 3]


@dataclass(frozen=True)
class PosedHead:
    """One frame; posed from several frames at once, every array has a leading [T]."""

    face: np.ndarray  # [V, 3] metres
    face_colors: np.ndarray  # [V, 3] sRGB: albedo with wrinkles
    parts: dict[str, np.ndarray]  # name -> [P, 3]
    transforms: dict[str, np.ndarray]  # rigid groups (head, jaw, each eye and tongue part by name) -> [4, 4] from neutral


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

    @cached_property
    def _basis(self) -> np.ndarray:  # [C, V * 3] metres a unit of each channel of RIG_CHANNELS
        rows = np.zeros((len(RIG_CHANNELS), self.face.vertices.size), np.float32)
        for name, offsets in self.shapes.items():
            unit = MAX_INTENSITY if name in AU_NAMES else 1.0
            rows[RIG_CHANNELS.index(name)] = offsets.ravel() / unit
        return rows

    @cached_property
    def _bindings(self) -> dict[str, FaceBinding]:
        return {part.name: FaceBinding.nearest(part.mesh.vertices, self.face) for part in self.parts if part.attachment == "face"}

    def offsets(self, values: np.ndarray) -> np.ndarray:  # [T, C] -> [T, V, 3] float32 metres
        """What `values` of RIG_CHANNELS add to the neutral face, constraints obeyed."""
        values = _checked(values, rows=2)
        neutral = self.face.vertices
        result = np.empty((len(values), *neutral.shape), np.float32)
        for start in range(0, len(values), _FRAMES_AT_ONCE):
            moved = (values[start : start + _FRAMES_AT_ONCE] @ self._basis).reshape(-1, *neutral.shape) + neutral
            for constraint in self.constraints:
                moved = constraint.apply(moved)
            result[start : start + _FRAMES_AT_ONCE] = moved - neutral
        return result

    def colors(self, values: np.ndarray) -> np.ndarray:  # [T, C] -> [T, V, 3] sRGB
        """The face's albedo with the wrinkles of its AUs."""
        values = _checked(values, rows=2)
        depth = np.zeros((len(values), len(self.face.colors)), np.float32)
        for name, darkening in self.wrinkles.items():
            depth += values[:, RIG_CHANNELS.index(name), None] / MAX_INTENSITY * darkening
        return self.face.colors * (1.0 - np.clip(depth, 0.0, 1.0)[..., None] * (1.0 - WRINKLE_TINT))

    def pose(self, values: np.ndarray) -> PosedHead:  # [C] or [T, C] values of RIG_CHANNELS
        """Face, colours and every part where `values` put them."""
        values = np.asarray(values)
        if values.ndim == 1:
            many = self.pose(values[None])
            return PosedHead(
                many.face[0],
                many.face_colors[0],
                {k: v[0] for k, v in many.parts.items()},
                {k: v[0] for k, v in many.transforms.items()},
            )
        values = _checked(values, rows=2)
        face = self.offsets(values) + self.face.vertices
        transforms = self.group_transforms(values, face)
        parts = {}
        for part in self.parts:
            if part.attachment == "face":
                parts[part.name] = self._bindings[part.name].follow(face)
            else:
                parts[part.name] = apply_transforms(transforms[group_of(part)], part.mesh.vertices)
        return PosedHead(face, self.colors(values), parts, transforms)

    def group_transforms(
        self,
        values: np.ndarray,  # [T, C]
        face: np.ndarray,  # [T, V, 3] the moved face
    ) -> dict[str, np.ndarray]:  # group -> [T, 4, 4]
        """Rigid motions from neutral: the jaw fitted to its skin, eyes by gaze, the tongue by jaw and visemes."""
        jaw_ids = self.regions["jaw"]
        transforms = {
            "head": np.broadcast_to(np.eye(4, dtype=np.float32), (len(face), 4, 4)),
            "jaw": fit_rigid_motion(self.face.vertices[jaw_ids], face[:, jaw_ids]),
        }
        yaw, pitch = (values[:, RIG_CHANNELS.index(name)] for name in GAZE_CHANNELS)
        tongue = sum(
            (values[:, RIG_CHANNELS.index(name), None] * np.array(pose) for name, pose in self.tongue_poses.items()), np.zeros(3)
        )
        tongue = np.broadcast_to(tongue, (len(face), 3))
        for part in self.parts:
            if part.attachment == "eye":
                transforms[part.name] = _turn_about(part.pivot, pitch=pitch, yaw=yaw)
            elif part.attachment == "tongue":
                own = _turn_about(part.pivot, pitch=tongue[:, 0], yaw=np.zeros(len(face)))
                own[:, 1, 3] += tongue[:, 2]
                own[:, 2, 3] += tongue[:, 1]
                transforms[part.name] = transforms["jaw"] @ own
        return transforms


@dataclass(frozen=True)
class FaceBinding:
    """Points that ride on face triangles, each at a fixed place in its triangle's own frame."""

    triangles: np.ndarray  # [P, 3] face vertex ids
    local: np.ndarray  # [P, 3] coordinates in the triangle's frame, metres

    @classmethod
    def nearest(cls, points: np.ndarray, face: Mesh) -> FaceBinding:
        """Bound to the triangle whose centre is nearest."""
        from scipy.spatial import cKDTree

        triangles = face.faces[cKDTree(face.vertices[face.faces].mean(axis=1)).query(points)[1]]
        centre, frame = _triangle_frames(face.vertices[triangles])
        return cls(triangles, np.einsum("pji,pj->pi", frame, points - centre).astype(np.float32))

    def follow(self, face: np.ndarray) -> np.ndarray:  # [T, V, 3] -> [T, P, 3]
        centre, frame = _triangle_frames(face[..., self.triangles, :])
        return (centre + np.einsum("...ij,...j->...i", frame, self.local)).astype(np.float32)


def _triangle_frames(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [..., 3, 3] -> centre [..., 3], axes as columns
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    along = (b - a) / np.maximum(np.linalg.norm(b - a, axis=-1, keepdims=True), 1e-12)
    normal = np.cross(b - a, c - a)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    return corners.mean(axis=-2), np.stack([along, np.cross(normal, along), normal], axis=-1)


def group_of(part: Part) -> str:
    """The name of the rigid group that moves a part which does not ride on the face."""
    return part.name if part.attachment in ("eye", "tongue") else part.attachment


def apply_transforms(transforms: np.ndarray, points: np.ndarray) -> np.ndarray:  # [T, 4, 4], [P, 3] -> [T, P, 3] float32
    return (points @ np.swapaxes(transforms[:, :3, :3], 1, 2) + transforms[:, None, :3, 3]).astype(np.float32)


def fit_rigid_motion(source: np.ndarray, target: np.ndarray) -> np.ndarray:  # [P, 3], [T, P, 3] -> [T, 4, 4]
    """The rotation and translation that carry `source` onto `target` best (Kabsch); what `geometry.fit_rigid` is for tensors."""
    source, target = source.astype(np.float64), target.astype(np.float64)
    source_centre, target_centre = source.mean(axis=0), target.mean(axis=1)
    covariance = np.swapaxes(target - target_centre[:, None], 1, 2) @ (source - source_centre)
    u, _, vt = np.linalg.svd(covariance)
    u[..., 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    transforms = np.tile(np.eye(4), (len(target), 1, 1))
    transforms[:, :3, :3] = u @ vt
    transforms[:, :3, 3] = target_centre - transforms[:, :3, :3] @ source_centre
    return transforms.astype(np.float32)


def _turn_about(pivot: tuple[float, float, float], pitch: np.ndarray, yaw: np.ndarray) -> np.ndarray:  # [T], [T] -> [T, 4, 4]
    """Positive pitch turns +z upwards, positive yaw turns it to +x; radians."""
    cp, sp, cy, sy = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    zero, transforms = np.zeros_like(cp), np.tile(np.eye(4, dtype=np.float32), (len(cp), 1, 1))
    rows = [[cy, -sy * sp, sy * cp], [zero, cp, sp], [-sy, -cy * sp, cy * cp]]
    transforms[:, :3, :3] = np.stack([np.stack(row, -1) for row in rows], -2)
    centre = np.asarray(pivot)
    transforms[:, :3, 3] = centre - transforms[:, :3, :3] @ centre
    return transforms


def _checked(values: np.ndarray, rows: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float32)
    if values.ndim != rows or values.shape[-1] != len(RIG_CHANNELS):
        raise InputError(f"rig values have shape {values.shape}, wanted [T, {len(RIG_CHANNELS)}] in the order of RIG_CHANNELS")
    return values
