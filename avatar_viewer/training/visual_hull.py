"""A start for captures without a scaffold: points on the surface of the space that no mask excludes."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree
from torch import Tensor

from ..errors import InputError
from .datasets.capture import Capture

CELLS = 96  # along each side
REACH = 0.32  # metres to each side of the face's centre
ENOUGH_VIEWS = 3  # what fewer cameras see is not carved well enough to be believed
CLEAR_OF_FACE = 0.004  # metres: nearer than this is skin


def carve_points(capture: Capture, count: int, seed: int) -> tuple[Tensor, Tensor]:  # [P, 3], [P, 3]
    """At most `count` points on the visual hull of the canonical masks, away from the face, and their outward normals."""
    centre = capture.neutral.mean(dim=0).numpy()
    axis = (np.arange(CELLS) + 0.5) / CELLS * 2 * REACH - REACH
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3) + centre
    inside, views = np.ones(len(cells), dtype=bool), np.zeros(len(cells), dtype=int)
    for shot in capture.canonical.shots:
        if shot.camera in capture.held_out_cameras:
            continue
        mask = shot.load()[1].numpy() > 127
        viewmat, intrinsics = shot.view.viewmat.double().numpy(), shot.view.K.double().numpy()
        local = cells @ viewmat[:3, :3].T + viewmat[:3, 3]
        pixel = local @ intrinsics.T
        x, y = np.floor(pixel[:, :2] / np.maximum(pixel[:, 2:], 1e-9)).astype(int).T
        seen = (local[:, 2] > 0) & (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
        views += seen
        inside &= ~seen | mask[np.clip(y, 0, mask.shape[0] - 1), np.clip(x, 0, mask.shape[1] - 1)]
    inside &= views >= min(ENOUGH_VIEWS, views.max())
    grid = inside.reshape(CELLS, CELLS, CELLS)
    shell = np.flatnonzero((grid & ~binary_erosion(grid)).ravel())
    shell = shell[cKDTree(capture.neutral.numpy()).query(cells[shell])[0] > CLEAR_OF_FACE]
    if not len(shell):
        raise InputError(
            f"capture {capture.folder}: its masks leave no space beside the face; give a scaffold.npz or check the masks"
        )
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(shell, size=count, replace=len(shell) < count))
    jitter = (rng.random((count, 3)) - 0.5) * (2 * REACH / CELLS)
    slope = np.stack(np.gradient(grid.astype(np.float32)), axis=-1).reshape(-1, 3)[chosen]
    return torch.from_numpy(cells[chosen] + jitter).float(), torch.from_numpy(-slope).float()
