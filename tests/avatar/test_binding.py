"""What carries the Gaussians that are not the face."""

from __future__ import annotations

import math

import pytest
import torch

from avatar_viewer.avatar.binding import bind, carry, gaze_rotation, group_transforms
from avatar_viewer.geometry import quat_to_rotmat
from avatar_viewer.types import RigidGroup


def _face() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.meshgrid(torch.linspace(-0.05, 0.05, 6), torch.linspace(-0.05, 0.05, 6), indexing="ij")
    vertices = torch.stack((x, y, 0.05 - 5 * (x * x + y * y)), -1).reshape(-1, 3)
    corner = torch.tensor([6 * i + j for i in range(5) for j in range(5)])
    triangles = (torch.stack((corner, corner + 6, corner + 1), 1), torch.stack((corner + 6, corner + 7, corner + 1), 1))
    return vertices, torch.cat(triangles)


def _turn_y(angle: float) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def test_a_point_on_a_vertex_rides_on_it_fully_and_one_in_the_hair_is_still():
    vertices, _ = _face()
    points = torch.stack((vertices[7] + torch.tensor([0.0, 0.0, 1e-6]), torch.tensor([0.0, 0.2, -0.1])))
    nearest, weights = bind(points, vertices)
    assert nearest[0, 0] == 7
    assert weights[0].sum() == pytest.approx(1.0, abs=1e-6)
    assert weights[0, 0] > 0.95
    assert weights[1].abs().sum() == 0


def test_grip_fades_with_distance_from_the_face():
    vertices, _ = _face()
    points = vertices[14] + torch.tensor([[0.0, 0.0, d] for d in (0.001, 0.01, 0.02, 0.03)])
    totals = bind(points, vertices)[1].sum(1)
    assert (totals.diff() < 0).all()
    assert totals[1].item() == pytest.approx(math.exp(-(0.010 - 0.004) / 0.012), rel=1e-3)


def test_gaze_turns_straight_ahead_to_the_side_and_up():
    ahead = torch.tensor([0.0, 0.0, 1.0])
    assert torch.allclose(gaze_rotation(torch.tensor([0.3, 0.0])) @ ahead, torch.tensor([math.sin(0.3), 0.0, math.cos(0.3)]))
    assert torch.allclose(gaze_rotation(torch.tensor([0.0, 0.2])) @ ahead, torch.tensor([0.0, math.sin(0.2), math.cos(0.2)]))


def test_teeth_follow_the_rigid_motion_of_the_jaw_and_eyes_turn_about_their_pivot():
    vertices, _ = _face()
    jaw = torch.arange(12)
    turn, shift = _turn_y(0.2), torch.tensor([0.0, -0.01, 0.0])
    moved = vertices.clone()
    moved[jaw] = vertices[jaw] @ turn.T + shift
    groups = (RigidGroup("teeth_lower", "jaw", (0.0, 0.0, 0.0), False), RigidGroup("eye_left", "head", (0.03, 0.0, 0.04), True))
    transforms = group_transforms(groups, vertices, moved, jaw, torch.tensor([0.4, 0.0]))
    assert torch.allclose(transforms[0, :3, :3], turn, atol=1e-5)
    pivot = torch.tensor(groups[1].pivot)
    means = torch.stack((torch.tensor([0.0, -0.02, 0.03]), pivot, pivot + torch.tensor([0.0, 0.0, 0.01])))
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(3, 1)
    unbound = torch.zeros(3, 4)
    new_means, new_quats = carry(means, quats, unbound.long(), unbound, torch.tensor([0, 1, 1]), transforms, moved - vertices)
    assert torch.allclose(new_means[0], turn @ means[0] + shift, atol=1e-5)
    assert torch.allclose(new_means[1], pivot, atol=1e-6)
    assert torch.allclose(new_means[2], pivot + 0.01 * torch.tensor([math.sin(0.4), 0.0, math.cos(0.4)]), atol=1e-6)
    assert torch.allclose(quat_to_rotmat(new_quats[0]), turn, atol=1e-5)


def test_zero_offsets_leave_everything_where_it_is():
    vertices, _ = _face()
    points = vertices + torch.tensor([0.0, 0.0, 0.002])
    quats = torch.nn.functional.normalize(torch.randn(len(points), 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    nearest, weights = bind(points, vertices)
    ids = torch.full((len(points),), -1)
    means, turned = carry(points, quats, nearest, weights, ids, torch.zeros(0, 4, 4), torch.zeros_like(vertices))
    assert torch.equal(means, points)
    assert torch.equal(turned, quats)


def test_carrying_is_differentiable_in_the_canonical_positions():
    vertices, _ = _face()
    points = (vertices[:5] + 0.001).requires_grad_()
    nearest, weights = bind(points, vertices)
    groups = torch.eye(4)[None]
    means, _ = carry(
        points, torch.ones(5, 4), nearest, weights, torch.tensor([-1, -1, 0, 0, -1]), groups, torch.zeros_like(vertices)
    )
    means.sum().backward()
    assert torch.allclose(points.grad, torch.ones_like(points.grad))
