"""Equations 12 to 17 on latents: with offsets = z @ basis every term is a quadratic form of K numbers a frame, not of 3 V.

Exact, not an approximation: |A offsets|^2 = z (basis A^T A basis^T) z. Knows tensors only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GeometryWeights:
    """Lambdas of eq. 17."""

    vertex: float = 1.0
    motion: float = 0.5
    deform: float = 0.1
    lip: float = 0.8


@dataclass(frozen=True)
class OffsetGrams:
    """The quadratic forms of eqs. 12 to 17 in a basis: offsets = z @ basis, so |A offsets|^2 = z (basis A^T A basis^T) z."""

    vertex: Tensor  # [K, K] mm^2, divided by V
    lips: Tensor  # [K, K] mm^2, divided by the number of lip vertices
    deform: Tensor  # [K, K] mm^2, divided by V

    def to(self, device: torch.device | str) -> OffsetGrams:
        return OffsetGrams(self.vertex.to(device), self.lips.to(device), self.deform.to(device))


def offset_grams(
    basis: Tensor,  # [K, V, 3] mm a unit of latent
    lips: Tensor,  # [P] int64
    laplacian: Tensor,  # sparse [V, V]
) -> OffsetGrams:
    """64 numbers a frame in place of 3 V, exactly."""
    basis = basis.double()
    vertices = basis.shape[1]
    smoothed = (
        torch.sparse.mm(laplacian.double(), basis.permute(1, 0, 2).flatten(1)).unflatten(1, (len(basis), 3)).permute(1, 0, 2)
    )

    def gram(part: Tensor, count: int) -> Tensor:
        flat = part.flatten(1)
        return (flat @ flat.T / count).float()

    return OffsetGrams(gram(basis, vertices), gram(basis[:, lips], len(lips)), gram(smoothed, vertices))


def squared_length(latents: Tensor, gram: Tensor) -> Tensor:  # [..., K], [K, K] -> [...]
    """z G z."""
    return ((latents @ gram) * latents).sum(-1)


def geometry_loss(
    predicted: Tensor,  # [B, T, K] latents
    truth: Tensor,  # [B, T, K]
    grams: OffsetGrams,
    lip_frames: Tensor,  # [B, T] weights, 0 where the lips are at rest
    weights: GeometryWeights = GeometryWeights(),
    before: Tensor | None = None,  # [B, 2, K] error (shown - truth) of the two frames before, for the seam; None: no seam
    has_before: Tensor | None = None,  # [B] bool: the frames before are known
    valid: Tensor | None = None,  # [B, T] bool: False beyond a truncated end
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 17 from latents, with its parts by name (vertex, velocity, acceleration, lip, deform)."""
    error = predicted - truth
    valid = torch.ones(error.shape[:2], device=error.device) if valid is None else valid.to(error.dtype)
    parts = {
        "vertex": _masked_mean(squared_length(error, grams.vertex), valid),
        "lip": _masked_mean(squared_length(error, grams.lips), valid * lip_frames),
        "deform": _masked_mean(squared_length(predicted, grams.deform), valid),
    }
    if before is not None:
        known = torch.ones(len(error), device=error.device) if has_before is None else has_before.to(error.dtype)
        error, valid = torch.cat((before, error), dim=1), torch.cat((known[:, None].expand(-1, 2), valid), dim=1)
    for name, order in (("velocity", 1), ("acceleration", 2)):
        change = error.diff(n=order, dim=1)
        counted = valid[:, order:] * valid[:, :-order]
        parts[name] = _masked_mean(squared_length(change, grams.vertex), counted)
    total = (
        weights.vertex * parts["vertex"]
        + weights.motion * (parts["velocity"] + parts["acceleration"])
        + weights.deform * parts["deform"]
        + weights.lip * parts["lip"]
    )
    return total, parts


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1e-6)
