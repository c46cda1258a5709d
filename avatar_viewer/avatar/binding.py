"""What carries the Gaussians that are not the face: hair, brows and lashes ride on nearby face vertices, eyes, teeth and
tongue move as rigid groups, the rest of the head is still (A21).

Pure functions of tensors, used alike while the canonical rig is trained and while it is animated, so that what was
fitted is what is shown. Knows no files, no networks, no time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..geometry import fit_rigid, quat_multiply, rotmat_to_quat
from ..types import RigidGroup

NEIGHBOURS = 4
NEAR_METRES = 0.004  # closer than this to the face rides on it fully: brows, lashes, stubble, the scalp's edge
FADE_METRES = 0.012  # e-fold of the grip beyond that
WEAKEST_GRIP = 0.05  # less than this is nothing: hair away from the face and clothes are still


def bind(
    points: Tensor,  # [P, 3] metres, canonical
    vertices: Tensor,  # [V, 3] metres, neutral face
) -> tuple[Tensor, Tensor]:  # [P, 4] int64, [P, 4]
    """The nearest face vertices of each point and their weights: inverse distance x exp(-distance / sigma), scaled to the
    grip that the face has on a point so far away (1 on the skin, 0 in the hair)."""
    tree = cKDTree(vertices.detach().cpu().double().numpy())
    distances, nearest = tree.query(points.detach().cpu().double().numpy(), k=min(NEIGHBOURS, len(vertices)))
    distances = torch.as_tensor(distances, dtype=points.dtype).reshape(len(points), -1)
    nearest = torch.as_tensor(nearest, dtype=torch.int64).reshape(len(points), -1)
    closest = distances[:, :1]
    relative = torch.exp(-(distances - closest) / FADE_METRES) / (distances + 1e-4)
    grip = torch.exp(-(closest - NEAR_METRES).clamp(min=0) / FADE_METRES)
    grip = torch.where(grip < WEAKEST_GRIP, torch.zeros_like(grip), grip)
    weights = grip * relative / relative.sum(dim=1, keepdim=True)
    missing = NEIGHBOURS - nearest.shape[1]
    if missing:
        nearest = torch.nn.functional.pad(nearest, (0, missing))
        weights = torch.nn.functional.pad(weights, (0, missing))
    return nearest.to(points.device), weights.to(points.device)


def gaze_rotation(gaze: Tensor) -> Tensor:  # [2] radians: yaw to +x, pitch up -> [3, 3]
    """The rotation that turns an eye from straight ahead (+z) to `gaze`."""
    yaw, pitch = gaze.unbind()
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    turn = torch.stack((torch.cos(yaw), zero, torch.sin(yaw), zero, one, zero, -torch.sin(yaw), zero, torch.cos(yaw))).reshape(
        3, 3
    )
    tilt = torch.stack(
        (one, zero, zero, zero, torch.cos(pitch), torch.sin(pitch), zero, -torch.sin(pitch), torch.cos(pitch))
    ).reshape(3, 3)
    return turn @ tilt


def group_transforms(
    groups: Sequence[RigidGroup],
    neutral: Tensor,  # [V, 3]
    moved: Tensor,  # [V, 3]
    jaw: Tensor,  # [J] int64, the vertices that are rigid with the mandible
    gaze: Tensor,  # [2] radians
) -> Tensor:  # [G, 4, 4]
    """Where each rigid group is: with the head, with the jaw's rigid fit, or turned about its pivot by the gaze."""
    result = torch.eye(4, dtype=neutral.dtype, device=neutral.device).repeat(len(groups), 1, 1)
    jaw_fit = None
    for index, group in enumerate(groups):
        if group.parent == "jaw" and len(jaw) >= 3 and not torch.equal(neutral[jaw], moved[jaw]):
            if jaw_fit is None:
                jaw_fit = fit_rigid(neutral[jaw], moved[jaw])
            result[index, :3, :3], result[index, :3, 3] = jaw_fit
        if group.follows_gaze:
            turn = gaze_rotation(gaze.to(neutral))
            pivot = torch.tensor(group.pivot, dtype=neutral.dtype, device=neutral.device)
            about_pivot = torch.eye(4, dtype=neutral.dtype, device=neutral.device)
            about_pivot[:3, :3], about_pivot[:3, 3] = turn, pivot - turn @ pivot
            result[index] = result[index] @ about_pivot
    return result


def carry(
    means: Tensor,  # [P, 3] metres, canonical
    quats: Tensor,  # [P, 4] wxyz, canonical
    binding_vertices: Tensor,  # [P, 4] int64
    binding_weights: Tensor,  # [P, 4]
    group_ids: Tensor,  # [P] int64, -1: bound to the face
    transforms: Tensor,  # [G, 4, 4]
    offsets: Tensor,  # [V, 3] metres, of the face from neutral
) -> tuple[Tensor, Tensor]:  # [P, 3], [P, 4]
    """Means and rotations of everything that is not the face, for one pose of it."""
    riding = (offsets[binding_vertices] * binding_weights[..., None]).sum(dim=1)
    moved = means + riding
    turned = quats
    for index, transform in enumerate(transforms):
        rows = torch.nonzero(group_ids == index).squeeze(1)
        if len(rows):
            turn = transform[:3, :3]
            moved = moved.index_copy(0, rows, means[rows] @ turn.T + transform[:3, 3])
            turned = turned.index_copy(0, rows, quat_multiply(rotmat_to_quat(turn).expand(len(rows), 4), quats[rows]))
    return moved, turned
