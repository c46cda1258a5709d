"""The trainable canonical rig: what is fixed, what is learned, within which bounds.

Three kinds of Gaussians. Face: one a vertex, in place. Others: hair, eyes, teeth, clothes; positions learned. Lining: dark
discs under the skin, not learned, so that a face that stretches or fades shows depth and not the far side of the head.
Knows tensors and a capture's start; knows no loss and no picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional as F

from ..avatar.binding import bind, carry
from ..geometry import quat_multiply, rotmat_to_quat
from ..networks.appearance import TriplaneColor, TriplaneConfig
from ..types import GaussianFrame, GaussianRig, RigidGroup
from .datasets.capture import Capture
from .under_layer import SHADE, UnderLayer, make_under_layer
from .visual_hull import carve_points

# Bounds of standard deviations, in units of the local spacing: no holes below, no blur and no needles above.
FACE_TANGENT, FACE_NORMAL = (0.4, 0.95), (0.03, 0.35)
# Skin is opaque: let it be less and the dark layer beneath shows as blotches, which cost 2 dB on the built-in head.
FACE_OPACITY_FLOOR = 2.2  # logit: 0.90
OTHER_BOUNDS = (0.06, 3.0)  # hair is long and thin
START_TANGENT, START_NORMAL = 0.55, 0.2
PLANE_RESOLUTIONS = (48, 384)
PLANE_CHANNELS = 8
# Gaussians are drawn in the order of their centres: a disc 1.2 mm down is drawn before skin that slopes away beside it and
# ripples it with dark rings (1 dB and an old face). 5 mm down and small, it stays behind slopes of 60 degrees.
LINING_DEPTH = 0.005  # metres
LINING_SHRINK = 0.6
START_GRAIN = 0.2  # of the planes' usual start: what a texel starts with and no picture corrects shows as grain


@dataclass(frozen=True)
class PoseState:
    """What a pose does to the canonical Gaussians."""

    offsets: Tensor  # [V, 3] metres
    turns: Tensor  # [V, 4] wxyz, of the skin
    transforms: Tensor  # [G, 4, 4] of the rigid groups


class CanonicalModel(nn.Module):
    """All Gaussians of a head, differentiable in what stage 1 learns."""

    def __init__(
        self,
        neutral: Tensor,  # [Q, 3]
        face_frames: Tensor,  # [Q, 3, 3], third column the normal
        face_spacing: Tensor,  # [Q] metres
        points: Tensor,  # [P, 3]
        point_frames: Tensor,  # [P, 3, 3]
        point_spacing: Tensor,  # [P]
        binding: tuple[Tensor, Tensor, Tensor],  # [P, 4] vertices, [P, 4] weights, [P] groups
        groups: tuple[RigidGroup, ...],
        lining: Tensor,  # [L] int64, face vertices that have a disc beneath
        under: UnderLayer,  # of all face vertices
    ) -> None:
        super().__init__()
        self.groups = groups
        self.polished: nn.Parameter | None = None  # [Q + P, 3], in the place of the triplane once its colours are baked
        low, high = neutral.amin(dim=0), neutral.amax(dim=0)  # the face gets the texels, the shoulders the shell around it
        centre, extent = ((low + high) / 2).tolist(), float((high - low).max()) / 2 * 1.05
        self.color = TriplaneColor(TriplaneConfig(tuple(centre), extent, PLANE_RESOLUTIONS, PLANE_CHANNELS))
        with torch.no_grad():
            for planes in self.color.planes:
                planes.mul_(START_GRAIN)
        start = torch.tensor([START_TANGENT, START_TANGENT, START_NORMAL]).log()
        self.face_quats = nn.Parameter(rotmat_to_quat(face_frames))
        self.face_log_scales = nn.Parameter(face_spacing.log()[:, None] + start)
        self.face_opacity_logits = nn.Parameter(torch.full((len(neutral),), 3.5))
        self.other_means = nn.Parameter(points.clone())
        self.other_quats = nn.Parameter(rotmat_to_quat(point_frames))
        self.other_log_scales = nn.Parameter(point_spacing.log()[:, None] + start)
        self.other_opacity_logits = nn.Parameter(torch.full((len(points),), 2.0))
        fixed = {
            "face_means": neutral,
            "face_spacing": face_spacing.log(),
            "other_spacing": point_spacing.log(),
            "lining": lining,
            "lining_means": under.means[lining],
            "lining_quats": under.quats[lining],
            "lining_log_scales": under.log_scales[lining]
            + 0.5 * math.log(len(neutral) / max(1, len(lining)))
            + math.log(LINING_SHRINK),
            "binding_vertices": torch.cat((binding[0], under.binding_vertices[lining])),
            "binding_weights": torch.cat((binding[1], under.binding_weights[lining])),
            "group_ids": torch.cat((binding[2], torch.full((len(lining),), -1))),
        }
        for name, tensor in fixed.items():
            self.register_buffer(name, tensor.clone(), persistent=False)

    def forward(self, pose: PoseState) -> GaussianFrame:
        rest_means = torch.cat((self.other_means, self.lining_means))
        rest_quats = torch.cat((F.normalize(self.other_quats, dim=-1), self.lining_quats))
        means, quats = carry(
            rest_means, rest_quats, self.binding_vertices, self.binding_weights, self.group_ids, pose.transforms, pose.offsets
        )
        face_quats = quat_multiply(pose.turns, F.normalize(self.face_quats, dim=-1))
        return GaussianFrame(
            means=torch.cat((self.face_means + pose.offsets, means)),
            quats=torch.cat((face_quats, quats)),
            scales=self._log_scales().exp(),
            opacities=torch.sigmoid(self._opacity_logits()),
            colors=self._colors(),
        )

    @torch.no_grad()
    def free_colors(self) -> None:
        """Bake the triplane's colours; from here on each Gaussian learns its own."""
        self.polished = nn.Parameter(self.triplane_colors())

    @torch.no_grad()
    def keep_bounds(self) -> None:
        """Bring every scale and freed colour back into its bounds; call after each optimiser step."""
        for axes, (low, high) in ((slice(0, 2), FACE_TANGENT), (slice(2, 3), FACE_NORMAL)):
            part = self.face_log_scales[:, axes]
            lowest, highest = (self.face_spacing[:, None] + torch.tensor(bound).log() for bound in (low, high))
            part.copy_(torch.minimum(torch.maximum(part, lowest), highest))
        self.face_opacity_logits.clamp_(min=FACE_OPACITY_FLOOR)
        lowest, highest = (self.other_spacing[:, None] + torch.tensor(bound).log() for bound in OTHER_BOUNDS)
        self.other_log_scales.copy_(torch.minimum(torch.maximum(self.other_log_scales, lowest), highest))
        if self.polished is not None:
            self.polished.clamp_(0, 1)

    @torch.no_grad()
    def bake(self) -> GaussianRig:
        """The rig as it stands, colours stored (C4)."""
        quats = torch.cat((self.face_quats, self.other_quats, self.lining_quats))
        return GaussianRig(
            means=torch.cat((self.face_means, self.other_means, self.lining_means)).clone(),
            quats=F.normalize(quats, dim=-1),
            log_scales=self._log_scales().clone(),
            opacity_logits=self._opacity_logits().clamp(-12, 12),
            colors=self._colors().clamp(0, 1),
            num_face=len(self.face_means),
            binding_vertices=self.binding_vertices,
            binding_weights=self.binding_weights,
            group_ids=self.group_ids,
            groups=self.groups,
        )

    def _log_scales(self) -> Tensor:
        return torch.cat((self.face_log_scales, self.other_log_scales, self.lining_log_scales))

    def _opacity_logits(self) -> Tensor:
        return torch.cat(
            (self.face_opacity_logits, self.other_opacity_logits, self.face_means.new_full((len(self.lining),), 6.0))
        )

    def triplane_colors(self) -> Tensor:  # [Q + P, 3]
        # Positions are learned from where things are, not from what colour would suit them.
        return self.color(torch.cat((self.face_means, self.other_means.detach())))

    def _colors(self) -> Tensor:
        learned = self.triplane_colors() if self.polished is None else self.polished
        return torch.cat((learned, learned.new_tensor(SHADE) * learned[self.lining].detach()))


def build_model(capture: Capture, others: int, seed: int) -> CanonicalModel:
    """The start: discs on the skin, and on the scaffold's surfaces or, without one, on the visual hull of the masks."""
    generator = torch.Generator().manual_seed(seed)
    neutral, faces = capture.neutral, capture.faces
    groups = capture.canonical.motion.groups if capture.canonical.motion is not None else ()
    scaffold = capture.scaffold
    if scaffold is not None:
        chosen = torch.randperm(len(scaffold.points), generator=generator)[:others].sort().values
        points, normals, parts = scaffold.points[chosen], scaffold.normals[chosen], scaffold.parts[chosen]
        group_of_part = torch.full((len(scaffold.part_names),), -1)
        names = [group.name for group in groups]
        for index, name in enumerate(scaffold.part_names):
            if name in names:
                group_of_part[index] = names.index(name)
        rides = torch.tensor([attachment == "face" for attachment in scaffold.attachments])[parts]
        vertices, weights = bind(points, neutral)
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-6) * rides[:, None]
        group_ids = group_of_part[parts]
    else:
        points, normals = carve_points(capture, others, seed)
        vertices, weights = bind(points, neutral)
        group_ids = torch.full((len(points),), -1)
    corners = neutral[faces]
    face_normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    vertex_normals = torch.zeros_like(neutral).index_add(0, faces.reshape(-1), face_normals.repeat_interleave(3, dim=0))
    lining = choose_apart(len(neutral), faces)
    lining = lining[distance_to_border(neutral, faces)[lining] > 2 * LINING_DEPTH]  # nearer, a disc may come out beside the skin
    return CanonicalModel(
        neutral, frames_from_normals(vertex_normals), _edge_length(neutral, faces), points, frames_from_normals(normals), spacing(points),
        (vertices, weights, group_ids), groups, lining, make_under_layer(neutral, faces, torch.zeros_like(neutral), LINING_DEPTH),
    )  # fmt: skip


def choose_apart(count: int, faces: Tensor) -> Tensor:  # [F, 3] -> [L] int64, about a quarter of the vertices
    """Vertices of which no two are neighbours and to which every other is one: evenly spread, by whatever measure the mesh is."""
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for a, b, c in faces.tolist():
        neighbours[a] += (b, c)
        neighbours[b] += (a, c)
        neighbours[c] += (a, b)
    taken, barred = [], bytearray(count)
    for vertex in range(count):
        if not barred[vertex]:
            taken.append(vertex)
            for other in neighbours[vertex]:
                barred[other] = 1
    return torch.tensor(taken, dtype=torch.int64)


def distance_to_border(vertices: Tensor, faces: Tensor) -> Tensor:  # [V, 3], [F, 3] -> [V] metres, infinite for a closed mesh
    edges = torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]])).sort(dim=1).values
    unique, uses = torch.unique(edges, dim=0, return_counts=True)
    border = vertices[unique[uses == 1].unique()].numpy()
    if not len(border):
        return torch.full((len(vertices),), torch.inf)
    return torch.from_numpy(cKDTree(border).query(vertices.numpy())[0]).float()


def frames_from_normals(normals: Tensor) -> Tensor:  # [P, 3] -> [P, 3, 3], columns tangent, bitangent, normal
    normal = F.normalize(normals, dim=-1)
    normal = torch.where(normal.abs().sum(-1, keepdim=True) < 0.5, torch.tensor([0.0, 0.0, 1.0]), normal)
    axes = F.one_hot(normal.abs().argmin(dim=-1), 3).to(normal)
    tangent = F.normalize(axes - (axes * normal).sum(-1, keepdim=True) * normal, dim=-1)
    return torch.stack((tangent, torch.linalg.cross(normal, tangent), normal), dim=-1)


def spacing(points: Tensor) -> Tensor:  # [P, 3] -> [P] metres
    """Distance to the third neighbour, within 0.3 mm to 15 mm."""
    if len(points) < 5:
        return torch.full((len(points),), 0.003)
    array = points.numpy()
    return torch.from_numpy(cKDTree(array).query(array, k=4)[0][:, 3]).float().clamp(3e-4, 0.015)


def _edge_length(vertices: Tensor, faces: Tensor) -> Tensor:  # [V, 3], [F, 3] -> [V] metres, mean of a vertex's edges
    edges = torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    length = (vertices[edges[:, 0]] - vertices[edges[:, 1]]).norm(dim=-1)
    ends = edges.reshape(-1)
    total = torch.zeros(len(vertices)).index_add(0, ends, length.repeat_interleave(2))
    count = torch.zeros(len(vertices)).index_add(0, ends, torch.ones(len(ends)))
    return (total / count.clamp(min=1)).clamp(3e-4, 0.02)
