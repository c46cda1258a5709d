"""What a Gaussian looks like: canonical colour from a triplane, and rotation and opacity that follow the action units.

RotNet, the feature line and OPCNet answer for the face rows only (C10-C12); colour and scale stay as they are (C14).
Knows tensors; knows no rig file, mesh topology, picture or loss. Every answer is relative to the answer at rest, so a face
with zero codes and zero offsets is the canonical rig to the last bit, whatever the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..action_units import MAX_INTENSITY, NUM_AUS

POSITION_SCALE = 10.0  # per metre: a head's coordinates become about -1..1
OFFSET_SCALE = 200.0  # per metre: a strong expression's 5 mm become 1
FULL_CHANGE_METRES = 6e-4  # skin that has moved this far follows RotNet and OPCNet fully


@dataclass(frozen=True)
class TriplaneConfig:
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)  # metres
    extent: float = 0.16  # metres: half the cube that is seen at full detail; all space beyond shares a border as wide again
    resolutions: tuple[int, ...] = (64, 256)  # texels a side, one set of planes each
    channels: int = 8  # a plane and resolution
    hidden: int = 64


class TriplaneColor(nn.Module):
    """Colour of a point: c = M(F_xy(x, y) ++ F_xz(x, z) ++ F_yz(y, z)) (supplement eq. 3).

    Used while the canonical rig is trained; the rig then stores the colours, and this net stays in the training checkpoint (A5).
    """

    def __init__(self, config: TriplaneConfig) -> None:
        super().__init__()
        self.config = config
        self.planes = nn.ParameterList(
            nn.Parameter(0.1 * torch.randn(3, config.channels, size, size)) for size in config.resolutions
        )
        self.decode = nn.Sequential(
            nn.Linear(3 * config.channels * len(config.resolutions), config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, 3),
        )
        self.register_buffer("centre", torch.tensor(config.centre), persistent=False)

    def forward(self, points: Tensor) -> Tensor:  # [P, 3] metres -> [P, 3] sRGB 0..1
        x, y, z = (contract((points - self.centre) / self.config.extent) / 2).unbind(-1)
        grid = torch.stack((torch.stack((x, y), -1), torch.stack((x, z), -1), torch.stack((y, z), -1)))[:, None]  # [3, 1, P, 2]
        features = [
            F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0]  # [3, C, P]
            for planes in self.planes
        ]
        stacked = torch.cat(features, dim=1).permute(2, 0, 1).flatten(1)  # [P, 3 * C * levels]
        return torch.sigmoid(self.decode(stacked))


def contract(points: Tensor) -> Tensor:  # [..., 3] -> [..., 3] within -2..2
    """Space beyond the unit cube, drawn into a shell one unit thick, so that a face gets most of a plane's texels."""
    reach = points.abs().amax(dim=-1, keepdim=True).clamp(min=1.0)
    return points * (2 - 1 / reach) / reach


@dataclass(frozen=True)
class AppearanceConfig:
    num_face: int  # Q
    num_aus: int = NUM_AUS
    channels: int = 16  # of the feature line
    hidden: int = 32
    opacity_hears_codes: bool = field(default=True, metadata={"later": True})  # False: the paper's ablation


class _PointMLP(nn.Module):
    """Three layers over [point features ++ codes], the codes being common to all points.

    Equal to concatenating the codes to every row, without ever forming those rows: on 8,500 points that is half the cost.
    The last layer starts at zero, so that training starts from the canonical look.
    """

    def __init__(self, point_features: int, num_aus: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.point_features = point_features
        self.first = nn.Linear(point_features + num_aus, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, points: Tensor, codes: Tensor) -> Tensor:  # [Q, P], [K] -> [Q, outputs]
        weight_points, weight_codes = self.first.weight[:, : self.point_features], self.first.weight[:, self.point_features :]
        bias = self.first.bias + weight_codes @ codes
        hidden = F.relu(torch.addmm(bias, points, weight_points.t()))
        return self.last(F.relu(self.second(hidden)))


def _encode_positions(means: Tensor, offsets: Tensor) -> Tensor:  # [Q, 3], [Q, 3] -> [Q, 6]
    """mu_t twice: absolute, and from rest on a finer scale, since 1 mm of motion is 1/100 of a head's coordinates."""
    return torch.cat(((means + offsets) * POSITION_SCALE, offsets * OFFSET_SCALE), dim=-1)


class RotNet(nn.Module):
    """R_t = N_rot(R_0, E_t, mu_t), as a residual quaternion to multiply onto R_0 (C10, A20)."""

    def __init__(self, num_aus: int = NUM_AUS, hidden: int = 32) -> None:
        super().__init__()
        self.mlp = _PointMLP(4 + 6, num_aus, hidden, 4)

    def forward(
        self,
        quats: Tensor,  # [Q, 4] wxyz, R_0
        codes: Tensor,  # [K] 0..5
        means: Tensor,  # [Q, 3] metres at rest
        offsets: Tensor,  # [Q, 3] metres
    ) -> Tensor:  # [Q, 4], to be added to the unit quaternion
        return self.mlp(torch.cat((quats, _encode_positions(means, offsets)), dim=-1), codes / MAX_INTENSITY)


class FeatureLine(nn.Module):
    """F [17, Q, 16]: what each action unit does to the opacity of each face Gaussian (C11); zero to begin with (A15)."""

    def __init__(self, num_face: int, num_aus: int = NUM_AUS, channels: int = 16) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(num_aus, num_face, channels))

    def forward(self, codes: Tensor) -> Tensor:  # [K] 0..5 -> [Q, C]
        """f_t: the features of the active units, weighted by their intensities."""
        num_aus, num_face, channels = self.values.shape
        return ((codes / MAX_INTENSITY) @ self.values.view(num_aus, num_face * channels)).view(num_face, channels)


class OPCNet(nn.Module):
    """Change of the opacity logit, N_opc(f_t, E_t, mu_t) (C12, A16)."""

    def __init__(self, num_aus: int = NUM_AUS, channels: int = 16, hidden: int = 32) -> None:
        super().__init__()
        self.mlp = _PointMLP(channels + 6, num_aus, hidden, 1)

    def forward(
        self,
        features: Tensor,  # [Q, C] of the feature line
        codes: Tensor,  # [K] 0..5
        means: Tensor,  # [Q, 3] metres at rest
        offsets: Tensor,  # [Q, 3] metres
    ) -> Tensor:  # [Q]
        points = torch.cat((features, _encode_positions(means, offsets)), dim=-1)
        return self.mlp(points, codes / MAX_INTENSITY).squeeze(-1)


@dataclass(frozen=True)
class AppearanceChange:
    """What the codes do to the face Gaussians; the unit quaternion and zero at rest."""

    quats: Tensor  # [Q, 4] wxyz, unit, to multiply onto the posed rotation from the left
    opacity_logits: Tensor  # [Q], to add to the canonical logits


class AppearanceDecoder(nn.Module):
    """RotNet, feature line and OPCNet of one avatar."""

    def __init__(self, config: AppearanceConfig) -> None:
        super().__init__()
        self.config = config
        self.rotation = RotNet(config.num_aus, config.hidden)
        self.line = FeatureLine(config.num_face, config.num_aus, config.channels)
        self.opacity = OPCNet(config.num_aus, config.channels, config.hidden)

    def raw(self, quats: Tensor, codes: Tensor, means: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:  # -> [Q, 4], [Q]
        """The two networks' outputs as they are; arguments as in `RotNet`."""
        told = codes if self.config.opacity_hears_codes else torch.zeros_like(codes)
        return self.rotation(quats, codes, means, offsets), self.opacity(self.line(told), told, means, offsets)

    def rest(self, quats: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:  # -> [Q, 4], [Q]
        """`raw` of the face without speech: constant for an avatar in use, so worth keeping."""
        return self.raw(quats, means.new_zeros(self.config.num_aus), means, torch.zeros_like(means))

    def forward(
        self,
        quats: Tensor,  # [Q, 4] wxyz, R_0
        codes: Tensor,  # [K] 0..5, edited: E~_t
        means: Tensor,  # [Q, 3] metres at rest
        offsets: Tensor,  # [Q, 3] metres
        rest: tuple[Tensor, Tensor] | None = None,  # of `rest`, where it is at hand
    ) -> AppearanceChange:
        rotation, logits = self.raw(quats, codes, means, offsets)
        rotation_rest, logits_rest = rest if rest is not None else self.rest(quats, means)
        # What does not move does not change its looks: the codes reach every Gaussian, a muscle only its own skin.
        share = (offsets.norm(dim=-1) / FULL_CHANGE_METRES).clamp(max=1.0)
        residual = share[:, None] * (rotation - rotation_rest)
        unit = torch.cat((1.0 + residual[:, :1], residual[:, 1:]), dim=-1)
        return AppearanceChange(F.normalize(unit, dim=-1), share * (logits - logits_rest))
