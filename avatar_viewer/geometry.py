"""Quaternions (wxyz), rigid transforms, cameras: plain maths on tensors.

The one place where pyrr's row-vector, OpenGL matrices become gsplat's column-vector, OpenCV ones.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from pyrr import Matrix44
from torch import Tensor

from .types import Camera


def quat_to_rotmat(quats: Tensor) -> Tensor:  # [..., 4] wxyz -> [..., 3, 3]
    """Rotation matrices; the quaternions need not be normalised."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(quats.shape[:-1] + (3, 3))


def rotmat_to_quat(rotmats: Tensor) -> Tensor:  # [..., 3, 3] -> [..., 4] wxyz, w >= 0
    """Unit quaternions, by the best-conditioned of the four classic formulas for each matrix."""
    m = rotmats
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    candidates = torch.stack(
        (
            torch.stack((1 + m00 + m11 + m22, m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]), -1),
            torch.stack((m[..., 2, 1] - m[..., 1, 2], 1 + m00 - m11 - m22, m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0]), -1),
            torch.stack((m[..., 0, 2] - m[..., 2, 0], m[..., 0, 1] + m[..., 1, 0], 1 - m00 + m11 - m22, m[..., 1, 2] + m[..., 2, 1]), -1),
            torch.stack((m[..., 1, 0] - m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1], 1 - m00 - m11 + m22), -1),
        ),
        dim=-2,
    )  # [..., 4, 4]: row i has the largest norm where component i is the largest
    best = torch.diagonal(candidates, dim1=-2, dim2=-1).argmax(dim=-1)
    quats = torch.gather(candidates, -2, best[..., None, None].expand(best.shape + (1, 4))).squeeze(-2)
    quats = torch.nn.functional.normalize(quats, dim=-1)
    return torch.where(quats[..., :1] < 0, -quats, quats)


def quat_multiply(a: Tensor, b: Tensor) -> Tensor:  # [..., 4], [..., 4] -> [..., 4] wxyz
    """The rotation b followed by the rotation a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ),
        dim=-1,
    )


def fit_rigid(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # [P, 3], [..., P, 3] -> [..., 3, 3], [..., 3]
    """Rotation and translation that carry `source` onto `target` best in the least-squares sense (Kabsch)."""
    source_centre, target_centre = source.mean(dim=-2), target.mean(dim=-2)
    covariance = (target - target_centre[..., None, :]).transpose(-1, -2) @ (source - source_centre)
    u, _, vt = torch.linalg.svd(covariance)
    flip = torch.ones_like(u[..., 0])
    flip[..., 2] = torch.sign(torch.linalg.det(u @ vt))
    rotation = (u * flip[..., None, :]) @ vt
    return rotation, target_centre - (rotation @ source_centre[..., None]).squeeze(-1)


def intrinsics_from_fov(fov_degrees: float, width: int, height: int) -> Tensor:  # -> [3, 3]
    """Square pixels, principal point in the middle; `fov_degrees` is vertical."""
    focal = 0.5 * height / math.tan(math.radians(fov_degrees) / 2)
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def viewmat_from_pyrr(view: Matrix44) -> Tensor:  # -> [4, 4]
    """gsplat's world-to-camera from pyrr's: columns for rows, and y, z flipped (OpenGL looks down -z with y up)."""
    column_vectors = np.asarray(view, dtype=np.float64).T
    return torch.from_numpy(np.diag([1.0, -1.0, -1.0, 1.0]) @ column_vectors).float()


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray) -> Tensor:  # three [3] -> [4, 4]
    """World-to-camera of a camera at `eye` that looks at `target`; `up` must not be parallel to the view."""
    return viewmat_from_pyrr(Matrix44.look_at(eye, target, up))


def orbit_camera(
    yaw_degrees: float,
    pitch_degrees: float,
    distance: float,  # metres
    fov_degrees: float,  # vertical
    width: int,
    height: int,
    target: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Camera:
    """Yaw 0 looks from +z; positive yaw moves the camera to +x, positive pitch moves it up; any pitch is fine."""
    yaw, pitch = math.radians(yaw_degrees), math.radians(pitch_degrees)
    outward = np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)])
    up = np.array([-math.sin(yaw) * math.sin(pitch), math.cos(pitch), -math.cos(yaw) * math.sin(pitch)])
    centre = np.asarray(target, dtype=np.float64)
    viewmat = look_at(centre + distance * outward, centre, up)
    return Camera(viewmat, intrinsics_from_fov(fov_degrees, width, height), width, height)
