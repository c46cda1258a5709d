"""The training losses, one function an equation of the supplement, in its order and under its number.

Means stand where the paper writes sums, so that a weight means the same on any subject (A24). Geometry is in millimetres:
in square metres it would vanish beside the rest. Knows tensors only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..metrics.image import ssim_map

# --------------------------------------------------------------------------------------- stage 1: speech to AUs (9-11)


def au_regression_loss(codes: Tensor, truth: Tensor) -> Tensor:  # [..., T, 17] 0..5 -> scalar
    """Eq. 9: mean |E - a|."""
    return (codes - truth).abs().mean()


def au_temporal_loss(codes: Tensor) -> Tensor:  # [..., T, 17] -> scalar
    """Eq. 10: mean (E_t - E_t-1)^2 over consecutive frames; 0 for a single frame."""
    if codes.shape[-2] < 2:
        return codes.new_zeros(())
    return codes.diff(dim=-2).square().mean()


def au_loss(
    codes: Tensor,  # [..., T, 17]
    truth: Tensor,
    regression_weight: float = 1.0,
    temporal_weight: float = 0.1,
) -> Tensor:
    """Eq. 11."""
    return regression_weight * au_regression_loss(codes, truth) + temporal_weight * au_temporal_loss(codes)


# ----------------------------------------------------------------------------------------------- stage 2: motion (12-17)
# Offsets in millimetres [..., T, V, 3]; nabla is the difference between frames. `latent_geometry` has the same on latents.


def vertex_loss(predicted: Tensor, truth: Tensor) -> Tensor:  # [..., T, V, 3] mm -> scalar mm^2
    """Eq. 12."""
    return (predicted - truth).square().sum(-1).mean()


def velocity_loss(predicted: Tensor, truth: Tensor) -> Tensor:  # [..., T, V, 3] mm -> scalar
    """Eq. 13."""
    return vertex_loss(predicted.diff(dim=-3), truth.diff(dim=-3))


def acceleration_loss(predicted: Tensor, truth: Tensor) -> Tensor:  # [..., T, V, 3] mm -> scalar
    """Eq. 14."""
    return vertex_loss(predicted.diff(n=2, dim=-3), truth.diff(n=2, dim=-3))


def motion_loss(predicted: Tensor, truth: Tensor) -> Tensor:  # [..., T, V, 3] mm -> scalar
    """Eq. 15."""
    return velocity_loss(predicted, truth) + acceleration_loss(predicted, truth)


def lip_loss(
    predicted: Tensor,  # [..., T, V, 3] mm
    truth: Tensor,
    lips: Tensor,  # [P] int64 vertex ids
    lip_frames: Tensor,  # [..., T] weight of a frame, 0 where the lips are at rest
) -> Tensor:
    """Eq. 16: over the lip vertices of the lip frames; 0 where there is no lip frame."""
    errors = (predicted - truth)[..., lips, :].square().sum(-1).mean(-1)
    return (errors * lip_frames).sum() / lip_frames.sum().clamp(min=1e-6)


def deform_loss(predicted: Tensor, laplacian: Tensor) -> Tensor:  # [..., V, 3] mm, [V, V] -> scalar
    """The deformation term of eq. 17, read as the Laplacian of the offset field (A7): neighbours move together."""
    return (laplacian @ predicted).square().sum(-1).mean()


def uniform_laplacian(faces: Tensor, num_vertices: int) -> Tensor:  # [F, 3] -> sparse [V, V]
    """I - D^-1 A: a vertex against the mean of its neighbours; zero rows for vertices without any."""
    ends = torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]])).long()
    ends = torch.unique(torch.cat((ends, ends.flip(1))), dim=0)
    degree = torch.bincount(ends[:, 0], minlength=num_vertices)
    alone = torch.arange(num_vertices)[degree > 0]
    indices = torch.cat((ends.T, alone.expand(2, -1)), dim=1)
    values = torch.cat((-1.0 / degree[ends[:, 0]], torch.ones(len(alone))))
    return torch.sparse_coo_tensor(indices, values, (num_vertices, num_vertices), check_invariants=False).coalesce()


# --------------------------------------------------------------------------------- stage 3: dynamic appearance (19-22)


def feature_line_loss(
    values: Tensor,  # [K, Q, C], the feature line F
    sparse_weight: float = 0.01,
    smooth_weight: float = 0.001,
) -> Tensor:
    """Eq. 19: sparse_weight * mean |F| + smooth_weight * mean over k of (f_k - f_k+1)^2.

    As written, the smoothness joins neighbours in the list of action units (A18).
    """
    return sparse_weight * values.abs().mean() + smooth_weight * (values[1:] - values[:-1]).square().mean()


def picture_loss(
    image: Tensor,  # [H, W, 3] 0..1
    truth: Tensor,  # [H, W, 3]
    ssim_weight: float = 0.2,
) -> Tensor:
    """Eq. 20: (1 - ssim_weight) * L1 + ssim_weight * (1 - SSIM)."""
    l1 = (image - truth).abs().mean()
    return (1 - ssim_weight) * l1 + ssim_weight * (1 - ssim_map(image, truth).mean())


def opacity_motion_loss(
    offsets: Tensor,  # [Q, 3] metres
    opacity_change: Tensor,  # [Q], of the logits
    mm_per_unit: float,  # gamma: how far a Gaussian moves while its opacity changes by one
    weight: float = 0.01,
) -> Tensor:
    """Eq. 21: weight * mean (|offset| - gamma * |opacity change|)^2, in square millimetres."""
    moved_mm = 1000 * offsets.norm(dim=-1)
    return weight * (moved_mm - mm_per_unit * opacity_change.abs()).square().mean()


def offset_limit_loss(
    offsets: Tensor,  # [Q, 3] metres
    limit_mm: float = 1.0,  # tau
    weight: float = 0.01,
) -> Tensor:
    """Eq. 22: weight * mean min(|offset|, tau), in mm.

    In the stage that the paper uses it in, positions are frozen, so it has no gradient; `still_opacity_loss` is trained.
    """
    return weight * (1000 * offsets.norm(dim=-1)).clamp(max=limit_mm).mean()


def still_opacity_loss(
    offsets: Tensor,  # [Q, 3] metres
    opacity_change: Tensor,  # [Q], of the logits
    still_mm: float = 1.0,
    weight: float = 0.01,
) -> Tensor:
    """A17's reading of eq. 22: weight * mean |opacity change| over the Gaussians that moved less than `still_mm`."""
    is_still = 1000 * offsets.norm(dim=-1) < still_mm
    return weight * (opacity_change.abs() * is_still).mean()


def sparse_opacity_loss(
    opacity_change: Tensor,  # [Q], of the logits
    weight: float = 0.01,
) -> Tensor:
    """weight * mean |opacity change|: a crease is a few Gaussians. Not the paper's; eq. 21 asks all that moves to change."""
    return weight * opacity_change.abs().mean()


# ------------------------------------------------------------------------------------------ stage 4: text to AUs (23-25)


def focal_bce_loss(
    logits: Tensor,  # [..., 17]
    truth: Tensor,  # [..., 17] 0 or 1, or in between for a soft label
    focal_alpha: float = 0.35,
    focal_gamma: float = 3.0,
) -> Tensor:
    """Eq. 23: mean of -a y (1-p)^g log p - (1-a) (1-y) p^g log(1-p)."""
    p = torch.sigmoid(logits)
    positive = -focal_alpha * truth * (1 - p) ** focal_gamma * F.logsigmoid(logits)
    negative = -(1 - focal_alpha) * (1 - truth) * p**focal_gamma * F.logsigmoid(-logits)
    return (positive + negative).mean()


def info_nce_loss(
    anchors: Tensor,  # [B, D]
    positives: Tensor,  # [B, D]
    negatives: Tensor,  # [B, M, D]
    temperature: float = 0.07,
) -> Tensor:
    """Eq. 24, averaged over the anchors: one positive against its own M negatives, by cosine."""
    anchors, positives, negatives = (F.normalize(z, dim=-1) for z in (anchors, positives, negatives))
    alike = (anchors * positives).sum(-1, keepdim=True)
    unlike = torch.einsum("bd,bmd->bm", anchors, negatives)
    scores = torch.cat([alike, unlike], dim=1) / temperature
    return -F.log_softmax(scores, dim=1)[:, 0].mean()


def text_loss(bce: Tensor, contrast: Tensor, bce_weight: float = 1.0, contrast_weight: float = 0.005) -> Tensor:
    """Eq. 25, with its "01" read as 1 (A23)."""
    return bce_weight * bce + contrast_weight * contrast
