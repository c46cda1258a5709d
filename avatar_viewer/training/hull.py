"""Where Gaussians start when a capture gives only pictures: the surface of the visual hull of its masks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .datasets.capture import Capture

REACH_METRES = 0.34  # half the cube that is carved
VOXELS = 96  # a side
POINTS = 20_000
OFF_THE_FACE_METRES = 0.004  # nearer than this the face itself is the surface


def visual_hull(capture: Capture) -> tuple[Tensor, Tensor]:  # [P, 3], [P, 3]
    """Points on the hull's surface away from the face, with outward normals; `InputError` where the masks leave nothing."""
    axis = torch.linspace(-REACH_METRES, REACH_METRES, VOXELS)
    centre = capture.neutral.mean(dim=0)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1) + centre  # [n, n, n, 3]
    inside = torch.ones(VOXELS, VOXELS, VOXELS, dtype=torch.bool)
    for shot in capture.canonical.shots:
        if shot.camera in capture.held_out_cameras:
            continue
        mask = shot.load()[1] > 127
        seen = grid @ shot.view.viewmat[:3, :3].T + shot.view.viewmat[:3, 3]
        pixels = seen @ shot.view.K.T
        column, row = (pixels[..., :2] / pixels[..., 2:].clamp(min=1e-6)).unbind(-1)
        in_view = (seen[..., 2] > 0.01) & (column >= 0) & (column < shot.view.width) & (row >= 0) & (row < shot.view.height)
        covered = mask[row.long().clamp(0, shot.view.height - 1), column.long().clamp(0, shot.view.width - 1)]
        inside &= covered | ~in_view  # what a camera does not see it cannot carve
    solid = inside.float()
    padded = torch.nn.functional.pad(solid, (1,) * 6)
    gradient = torch.stack([(padded.roll(-1, d) - padded.roll(1, d))[1:-1, 1:-1, 1:-1] for d in range(3)], dim=-1)
    surface = inside & (gradient.abs().sum(dim=-1) > 0)
    points, normals = grid[surface], -gradient[surface]
    away = torch.cat([torch.cdist(part, capture.neutral).min(dim=1).values for part in points.split(4096)]) if len(points) else points
    keep = torch.nonzero(away > OFF_THE_FACE_METRES).squeeze(1) if len(points) else torch.zeros(0, dtype=torch.int64)
    if len(keep) == 0:
        raise InputError(f"capture {capture.folder}: its masks carve everything away; check cameras.json and the masks")
    generator = torch.Generator().manual_seed(0)
    keep = keep[torch.randperm(len(keep), generator=generator)[:POINTS]]
    step = 2 * REACH_METRES / VOXELS
    jitter = (torch.rand(len(keep), 3, generator=generator) - 0.5) * step
    return points[keep] + jitter, torch.nn.functional.normalize(normals[keep], dim=-1)
