"""The dark layer beneath the face: what shows when opacity dips, so that a wrinkle is dark and not a hole into the head.

One flat Gaussian under each face vertex, bound to that vertex alone, so that it moves with the skin above it. A start for
the canonical stage, to be appended to its non-face Gaussians; knows no picture and no optimiser.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..avatar.binding import NEIGHBOURS
from ..geometry import rotmat_to_quat

DEPTH_METRES = 0.0012  # far enough to stay behind the skin's own thickness, near enough not to show at the rims
SHADE = (0.52, 0.30, 0.25)  # of the skin above it: the bottom of a wrinkle, deep and red, for skin scatters red light furthest


@dataclass(frozen=True)
class UnderLayer:
    """Rows for everything in a rig that is not the face; one for each face vertex."""

    means: Tensor  # [V, 3] metres
    quats: Tensor  # [V, 4] wxyz
    log_scales: Tensor  # [V, 3]
    colors: Tensor  # [V, 3] sRGB
    binding_vertices: Tensor  # [V, 4] int64
    binding_weights: Tensor  # [V, 4]


def make_under_layer(
    neutral: Tensor,  # [V, 3] metres
    faces: Tensor,  # [F, 3] int64
    colors: Tensor,  # [V, 3] sRGB of the skin
    depth: float = DEPTH_METRES,
) -> UnderLayer:
    """Flat Gaussians `depth` inside the skin, as wide as the gaps between vertices."""
    count = len(neutral)
    normals = vertex_normals(neutral, faces)
    axes = F.one_hot(normals.abs().argmin(dim=-1), 3).to(normals)
    tangents = F.normalize(torch.linalg.cross(axes, normals), dim=-1)
    frames = torch.stack((tangents, torch.linalg.cross(normals, tangents), normals), dim=-1)
    spread = 0.6 * mean_edge_length(neutral, faces)
    vertices = torch.zeros(count, NEIGHBOURS, dtype=torch.int64, device=neutral.device)
    vertices[:, 0] = torch.arange(count, device=neutral.device)
    weights = torch.zeros(count, NEIGHBOURS, device=neutral.device)
    weights[:, 0] = 1.0
    return UnderLayer(
        means=neutral - depth * normals,
        quats=rotmat_to_quat(frames),
        log_scales=torch.stack((spread, spread, torch.full_like(spread, 0.2 * depth)), dim=-1).clamp(min=1e-5).log(),
        colors=(colors.new_tensor(SHADE) * colors).clamp(0, 1),
        binding_vertices=vertices,
        binding_weights=weights,
    )


def vertex_normals(neutral: Tensor, faces: Tensor) -> Tensor:  # [V, 3], [F, 3] -> [V, 3] unit, outwards
    """Area-weighted normals."""
    corners = neutral[faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return F.normalize(torch.zeros_like(neutral).index_add(0, faces.reshape(-1), normals.repeat_interleave(3, dim=0)), dim=-1)


def mean_edge_length(neutral: Tensor, faces: Tensor) -> Tensor:  # [V, 3], [F, 3] -> [V] metres
    """Mean length of the edges that meet at each vertex."""
    ends = torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    ends = torch.cat((ends, ends.flip(1)))
    lengths = (neutral[ends[:, 0]] - neutral[ends[:, 1]]).norm(dim=-1)
    total = torch.zeros(len(neutral), device=neutral.device).index_add(0, ends[:, 0], lengths)
    number = torch.zeros(len(neutral), device=neutral.device).index_add(0, ends[:, 0], torch.ones_like(lengths))
    return total / number.clamp(min=1)
