"""What a face may not do, whatever its shapes add up to: lids slide over the eye, lips and lids do not cross.

Laws are functions of the moved vertices alone, batched over frames. Lengths in metres, like the rig's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SphereContact:
    """Skin that rests on an eyeball is pushed out to where it rests, along the eye's radius."""

    centre: np.ndarray  # [3]
    vertices: np.ndarray  # [K] ids
    least_radius: np.ndarray  # [K] metres

    def apply(self, vertices: np.ndarray) -> np.ndarray:  # [T, V, 3] -> [T, V, 3]
        outwards = vertices[:, self.vertices] - self.centre
        radius = np.linalg.norm(outwards, axis=-1, keepdims=True)
        moved = vertices.copy()
        moved[:, self.vertices] = self.centre + outwards * np.maximum(1.0, self.least_radius[:, None] / np.maximum(radius, 1e-9))
        return moved


@dataclass(frozen=True)
class LipContact:
    """Two margins that meet and press but do not cross: what overlaps is given half to each side.

    Each affected vertex takes its share from two neighbouring pairs, so the skin around the margins follows softly.
    """

    upper: np.ndarray  # [P] ids
    lower: np.ndarray  # [P] ids
    affected: np.ndarray  # [K] ids, margins included
    pairs: np.ndarray  # [K, 2] the two pairs that each affected vertex follows
    shares: np.ndarray  # [K, 2] and how much, signed: positive goes up
    least_gap: float = 0.0001  # metres

    def apply(self, vertices: np.ndarray) -> np.ndarray:  # [T, V, 3] -> [T, V, 3]
        gap = vertices[:, self.upper, 1] - vertices[:, self.lower, 1]
        excess = 0.5 * np.maximum(0.0, self.least_gap - gap)  # [T, P]
        moved = vertices.copy()
        moved[:, self.affected, 1] += (excess[:, self.pairs] * self.shares).sum(axis=-1)
        return moved


def contact_between(
    margin_u: np.ndarray,  # [P] position along the margin, increasing
    upper: np.ndarray,  # [P]
    lower: np.ndarray,  # [P]
    affected: np.ndarray,  # [K] ids
    affected_u: np.ndarray,  # [K] position along the margin
    follow: np.ndarray,  # [K] -1..1: 1 moves like the upper margin, -1 like the lower one
    least_gap: float = 0.0001,
) -> LipContact:
    """A contact whose neighbourhood is interpolated along the margin."""
    right = np.clip(np.searchsorted(margin_u, affected_u), 1, len(margin_u) - 1)
    share = np.clip((affected_u - margin_u[right - 1]) / (margin_u[right] - margin_u[right - 1]), 0.0, 1.0)
    beyond = np.maximum(0.0, np.maximum(margin_u[0] - affected_u, affected_u - margin_u[-1]))
    follow = follow * np.exp(-((beyond / max(margin_u[1] - margin_u[0], 1e-9)) ** 2))
    shares = np.stack([(1 - share) * follow, share * follow], -1).astype(np.float32)
    moved = np.abs(shares).max(axis=1) > 1e-3
    return LipContact(upper, lower, affected[moved], np.stack([right - 1, right], -1)[moved], shares[moved], least_gap)
