"""How a moved face carries the head's Gaussians: tables worked out once for an avatar, then a few fast sums a frame.

Says the same as `binding.carry`, at the pace of the display: only rows that something moves are touched. The face's own
Gaussians turn with the skin: each vertex keeps a linear map from offsets to the skin's gradient there, fitted over its
one-ring, so a rigid motion of the face is followed exactly. Knows no codes and no networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..geometry import quat_multiply, rotmat_to_quat
from ..types import GaussianRig
from .binding import group_transforms
from .face import FaceTemplate


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix by rows, for products with [V, 3]."""

    columns: Tensor  # [nnz] int64
    weights: Tensor  # [nnz]
    starts: Tensor  # [rows] int64: where each row begins

    def __matmul__(self, values: Tensor) -> Tensor:  # [V, 3] -> [rows, 3]
        return F.embedding_bag(self.columns, values, self.starts, mode="sum", per_sample_weights=self.weights)

    def to(self, device: torch.device) -> SparseRows:
        return SparseRows(self.columns.to(device), self.weights.to(device), self.starts.to(device))


@dataclass(frozen=True)
class SkinTables:
    """What of an avatar's motion can be worked out beforehand."""

    neutral: Tensor  # [V, 3] metres
    gradient: SparseRows  # [2V rows]: the skin's gradient along two tangents of each vertex; first all u, then all v
    gradient_rest: Tensor  # [2, V, 3] of the neutral face
    frames_rest: tuple[Tensor, Tensor, Tensor]  # three [V, 3]: tangent, bitangent, normal
    means: Tensor  # [N - Q, 3] metres, what is not the face
    quats: Tensor  # [N - Q, 4] wxyz
    riding_rows: Tensor  # [R] int64 into those rows: carried by face vertices
    riding: SparseRows  # [R rows]
    group_rows: tuple[Tensor, ...]  # a group each: int64 into those rows
    jaw: Tensor  # [J] int64 face vertices that are rigid with the mandible
    scales: Tensor  # [N, 3] metres


def build_skin(rig: GaussianRig, face: FaceTemplate) -> SkinTables:
    """The tables of an avatar, on the device of its rig."""
    device = rig.means.device
    neutral = rig.means[: rig.num_face]
    gradient = _skin_gradient(neutral.cpu(), face.faces.cpu()).to(device)
    gradient_rest = (gradient @ neutral).unflatten(0, (2, -1))
    weights = rig.binding_weights
    riding_rows = torch.nonzero((rig.group_ids < 0) & (weights.abs().sum(dim=1) > 0)).squeeze(1)
    neighbours = rig.binding_vertices.shape[1]
    starts = torch.arange(len(riding_rows), device=device) * neighbours
    return SkinTables(
        neutral=neutral,
        gradient=gradient,
        gradient_rest=gradient_rest,
        frames_rest=_orthonormal(*gradient_rest),
        means=rig.means[rig.num_face :],
        quats=rig.quats[rig.num_face :],
        riding_rows=riding_rows,
        riding=SparseRows(rig.binding_vertices[riding_rows].reshape(-1), weights[riding_rows].reshape(-1), starts),
        group_rows=tuple(torch.nonzero(rig.group_ids == index).squeeze(1) for index in range(len(rig.groups))),
        jaw=face.regions["jaw"],
        scales=rig.log_scales.exp(),
    )


def turn_skin(tables: SkinTables, offsets: Tensor) -> Tensor:  # [V, 3] metres -> [V, 4] wxyz
    """How the skin at each vertex has turned from neutral; the unit quaternion, to the last bit, where nothing moved."""
    moved = _orthonormal(*(tables.gradient_rest + (tables.gradient @ offsets).unflatten(0, (2, -1))))
    trace = sum((rest * now).sum(dim=-1, keepdim=True) for rest, now in zip(tables.frames_rest, moved))
    axis = sum(torch.linalg.cross(rest, now - rest) for rest, now in zip(tables.frames_rest, moved))  # 0 exactly at rest
    return F.normalize(torch.cat((1 + trace, axis), dim=-1), dim=-1)


def carry_rest(
    tables: SkinTables,
    rig: GaussianRig,
    offsets: Tensor,  # [V, 3] metres
    gaze: Tensor,  # [2] radians
    transforms: Tensor | None = None,  # [G, 4, 4] of the rigid groups, where a capture knows them
) -> tuple[Tensor, Tensor]:  # [N - Q, 3], [N - Q, 4]
    """Means and rotations of everything that is not the face."""
    means = tables.means.index_add(0, tables.riding_rows, tables.riding @ offsets)
    quats = tables.quats
    if transforms is None:
        transforms = group_transforms(rig.groups, tables.neutral, tables.neutral + offsets, tables.jaw, gaze)
    for rows, transform in zip(tables.group_rows, transforms):
        if len(rows):
            turn, shift = transform[:3, :3], transform[:3, 3]
            means = means.index_copy(0, rows, tables.means[rows] @ turn.T + shift)
            quats = quats.index_copy(0, rows, quat_multiply(rotmat_to_quat(turn).expand(len(rows), 4), tables.quats[rows]))
    return means, quats


def _orthonormal(along_u: Tensor, along_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # two [V, 3] -> three [V, 3]
    """The right-handed frame nearest to two directions of the skin, neither favoured; zero where the skin has collapsed."""
    normal = F.normalize(torch.linalg.cross(along_u, along_v), dim=-1)
    tangent = F.normalize(F.normalize(along_u, dim=-1) + torch.linalg.cross(F.normalize(along_v, dim=-1), normal), dim=-1)
    return tangent, torch.linalg.cross(normal, tangent), normal


def _skin_gradient(neutral: Tensor, faces: Tensor) -> SparseRows:
    """Least-squares gradient of a vertex function over each vertex's one-ring, along two tangents of the neutral face."""
    count = len(neutral)
    edges = torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    edges = torch.unique(torch.cat((edges, edges.flip(1))), dim=0)
    edges = edges[edges[:, 0] != edges[:, 1]]
    centre, other = edges.unbind(1)
    tangent_u, tangent_v = _tangents(neutral, faces)
    step = neutral[other] - neutral[centre]
    steps = torch.stack(((step * tangent_u[centre]).sum(-1), (step * tangent_v[centre]).sum(-1)), dim=-1).double()  # [E, 2]
    moments = torch.zeros(count, 2, 2, dtype=torch.float64).index_add(0, centre, steps[:, :, None] * steps[:, None, :])
    # A vertex of one triangle's corner or of none still gets a finite answer; it moves with its neighbours as far as they say.
    moments = moments + 1e-6 * (moments.diagonal(dim1=1, dim2=2).sum(-1).clamp(min=1e-12)[:, None, None] * torch.eye(2, dtype=torch.float64))
    weights = (torch.linalg.inv(moments)[centre] @ steps[..., None]).squeeze(-1).float()  # [E, 2]
    own = torch.zeros(count, 2).index_add(0, centre, -weights)
    rows = torch.cat((centre, centre + count, torch.arange(2 * count)))
    columns = torch.cat((other, other, torch.arange(count), torch.arange(count)))
    values = torch.cat((weights[:, 0], weights[:, 1], own[:, 0], own[:, 1]))
    order = torch.argsort(rows, stable=True)
    starts = torch.searchsorted(rows[order], torch.arange(2 * count))
    return SparseRows(columns[order], values[order], starts)


def _tangents(neutral: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:  # -> two [V, 3]
    corners = neutral[faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.zeros_like(neutral).index_add(0, faces.reshape(-1), normals.repeat_interleave(3, dim=0))
    normals = F.normalize(normals, dim=-1)
    # The coordinate axis that is most nearly tangential makes the best-conditioned start.
    axes = F.one_hot(normals.abs().argmin(dim=-1), 3).to(normals)
    tangent_u = F.normalize(axes - (axes * normals).sum(-1, keepdim=True) * normals, dim=-1)
    return tangent_u, torch.linalg.cross(normals, tangent_u)
