"""An avatar small enough to build in a second, in the real formats and through the real doors, with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.avatar.binding import bind
from avatar_viewer.avatar.face import FaceTemplate
from avatar_viewer.types import GaussianRig, RigidGroup

COLUMNS, ROWS = 15, 14  # of the face's grid of vertices
SLIT_ROW = 4  # the mouth lies between this row and the next
REST = 190  # Gaussians that are not the face


def make_tiny_face() -> FaceTemplate:
    """A bulging grid, 14 cm by 20 cm, with a slit for a mouth; 210 vertices."""
    across = torch.linspace(-0.07, 0.07, COLUMNS)
    upwards = torch.linspace(-0.10, 0.10, ROWS)
    y, x = torch.meshgrid(upwards, across, indexing="ij")
    z = 0.09 - 6.0 * x.square() - 2.0 * y.square()
    ids = torch.arange(COLUMNS * ROWS).view(ROWS, COLUMNS)
    corners = torch.stack((ids[:-1, :-1], ids[:-1, 1:], ids[1:, 1:], ids[1:, :-1]), dim=-1)  # [13, 14, 4]
    is_skin = torch.ones(ROWS - 1, COLUMNS - 1, dtype=torch.bool)
    is_skin[SLIT_ROW, 5:9] = False
    quads = corners[is_skin]
    mouth = ids[SLIT_ROW - 1 : SLIT_ROW + 3, 4:11].flatten()
    brows, lids = ids[11:13, 2:13].flatten(), ids[9:11, 2:13].flatten()
    regions = {"lips": mouth, "jaw": ids[:3, 3:12].flatten(), "eyelids": lids, "upper_face": ids[8:].flatten()}
    regions |= {name: brows if name in AU_NAMES[:3] else lids if name in ("AU05", "AU06", "AU07", "AU45") else mouth for name in AU_NAMES}
    return FaceTemplate(
        neutral=torch.stack((x, y, z), dim=-1).reshape(-1, 3),
        faces=torch.cat((quads[:, [0, 1, 2]], quads[:, [0, 2, 3]])),
        regions=regions,
        lip_upper=ids[SLIT_ROW + 1, 5:10],
        lip_lower=ids[SLIT_ROW, 5:10],
    )


def make_tiny_rig(face: FaceTemplate) -> GaussianRig:
    """400 Gaussians: the face, two eyes, lower teeth, and a shell of hair and skull behind."""
    generator = torch.Generator().manual_seed(5)
    count = len(face.neutral)
    shell = torch.nn.functional.normalize(torch.randn(REST, 3, generator=generator), dim=-1) * torch.tensor([0.08, 0.11, 0.08])
    shell[:, 2] = -shell[:, 2].abs()
    groups = (
        RigidGroup("eye_left", "head", (0.03, 0.03, 0.075), True),
        RigidGroup("eye_right", "head", (-0.03, 0.03, 0.075), True),
        RigidGroup("teeth_lower", "jaw", (0.0, -0.04, 0.06), False),
    )
    group_ids = torch.full((REST,), -1)
    for index, group in enumerate(groups):
        rows = slice(20 * index, 20 * index + 20)
        group_ids[rows] = index
        shell[rows] = torch.tensor(group.pivot) + 0.01 * torch.randn(20, 3, generator=generator)
    shell[60:90] = face.neutral[::7] + torch.tensor([0.0, 0.0, 0.003])  # brows and lashes: close to the skin
    vertices, weights = bind(shell, face.neutral)
    means = torch.cat((face.neutral, shell))
    quats = torch.nn.functional.normalize(torch.randn(count + REST, 4, generator=generator), dim=-1).half().float()
    return GaussianRig(
        means=means,
        quats=torch.nn.functional.normalize(quats, dim=-1),
        log_scales=torch.full((count + REST, 3), -4.75),
        opacity_logits=torch.full((count + REST,), 2.5),
        colors=(0.3 + 0.5 * torch.rand(count + REST, 3, generator=generator)).half().float(),
        num_face=count,
        binding_vertices=vertices,
        binding_weights=weights.half().float(),
        group_ids=group_ids,
        groups=groups,
    )


def randomise(network: torch.nn.Module, scale: float, seed: int = 0) -> None:
    """Weights that do something visible, the same in every run."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="session")
def tiny_face() -> FaceTemplate:
    return make_tiny_face()


@pytest.fixture(scope="session")
def tiny_rig(tiny_face: FaceTemplate) -> GaussianRig:
    return make_tiny_rig(tiny_face)
