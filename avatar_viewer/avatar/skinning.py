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
    gradient_rest: Tensor  # [2V, 3] of the neutral face
    frames_rest: Tensor  # [3, 3, V]: tangent, bitangent and normal, coordinates first
    riding_rows: Tensor  # [R] int64 into the rig's rows: carried by face vertices
    riding: SparseRows  # [R rows]
    group_rows: tuple[Tensor, ...]  # a group each: int64 into the rig's rows
    jaw: Tensor  # [J] int64 face vertices that are rigid with the mandible
    scales: Tensor  # [N, 3] metres


def build_skin(rig: GaussianRig, face: FaceTemplate) -> SkinTables:
    """The tables of an avatar, on the device of its rig."""
    device, count = rig.means.device, rig.num_face
    neutral = rig.means[:count]
    gradient = _skin_gradient(neutral.cpu(), face.faces.cpu()).to(device)
    gradient_rest = gradient @ neutral
    weights = rig.binding_weights
    riding_rows = torch.nonzero((rig.group_ids < 0) & (weights.abs().sum(dim=1) > 0)).squeeze(1)
    starts = torch.arange(len(riding_rows), device=device) * rig.binding_vertices.shape[1]
    return SkinTables(
        neutral=neutral,
        gradient=gradient,
        gradient_rest=gradient_rest,
        frames_rest=_frames(gradient_rest),
        riding_rows=count + riding_rows,
        riding=SparseRows(rig.binding_vertices[riding_rows].reshape(-1), weights[riding_rows].reshape(-1), starts),
        group_rows=tuple(count + torch.nonzero(rig.group_ids == index).squeeze(1) for index in range(len(rig.groups))),
        jaw=face.regions["jaw"],
        scales=rig.log_scales.exp(),
    )


def turn_skin(tables: SkinTables, offsets: Tensor) -> Tensor:  # [V, 3] metres -> [V, 4] wxyz
    """How the skin at each vertex has turned from neutral; the unit quaternion, to the last bit, where nothing moved."""
    moved = _frames(tables.gradient_rest + tables.gradient @ offsets)
    real = 1 + (tables.frames_rest * moved).sum(dim=(0, 1))  # 1 + trace
    axis = sum(_cross(rest, now - rest) for rest, now in zip(tables.frames_rest, moved))  # 0 exactly at rest
    quats = torch.cat((real[None], axis))
    return (quats * torch.rsqrt(quats.square().sum(dim=0).clamp(min=1e-12))).t().contiguous()


def place_gaussians(
    tables: SkinTables,
    rig: GaussianRig,
    offsets: Tensor,  # [V, 3] metres
    gaze: Tensor,  # [2] radians
    face_quats: Tensor,  # [V, 4] wxyz, of the face as it is now
    transforms: Tensor | None = None,  # [G, 4, 4] of the rigid groups, where a capture knows them
) -> tuple[Tensor, Tensor]:  # [N, 3], [N, 4]
    """Means and rotations of the whole head: the face by `offsets` and `face_quats`, the rest carried."""
    if transforms is None:
        transforms = group_transforms(rig.groups, tables.neutral, tables.neutral + offsets, tables.jaw, gaze)
    means, quats = rig.means.clone(), rig.quats.clone()
    means[: rig.num_face] += offsets
    quats[: rig.num_face] = face_quats
    if len(tables.riding_rows):
        means.index_add_(0, tables.riding_rows, tables.riding @ offsets)
    for rows, transform in zip(tables.group_rows, transforms):
        if len(rows):
            turn, shift = transform[:3, :3], transform[:3, 3]
            means[rows] = rig.means[rows] @ turn.T + shift
            quats[rows] = quat_multiply(rotmat_to_quat(turn).expand(len(rows), 4), rig.quats[rows])
    return means, quats


def _frames(gradient: Tensor) -> Tensor:  # [2V, 3] -> [3, 3, V]
    """The right-handed frame nearest to the skin's two directions, neither favoured; zero where the skin has collapsed.

    Coordinates come first: on contiguous rows the same sums take a third of the time.
    """
    along_u, along_v = gradient.t().contiguous().chunk(2, dim=1)
    normal = _normalise(_cross(along_u, along_v))
    tangent = _normalise(_normalise(along_u) + _cross(_normalise(along_v), normal))
    return torch.stack((tangent, _cross(normal, tangent), normal))


def _cross(a: Tensor, b: Tensor) -> Tensor:  # two [3, V] -> [3, V]
    (ax, ay, az), (bx, by, bz) = a, b
    return torch.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx))


def _normalise(a: Tensor) -> Tensor:  # [3, V] -> [3, V]
    return a * torch.rsqrt((a * a).sum(dim=0).clamp(min=1e-24))


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
    moments = moments + 1e-6 * (
        moments.diagonal(dim1=1, dim2=2).sum(-1).clamp(min=1e-12)[:, None, None] * torch.eye(2, dtype=torch.float64)
    )
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
