"""Quaternions, rigid fits and the one place where pyrr meets gsplat."""

import math

import pytest
import torch

from avatar_viewer.geometry import fit_rigid, intrinsics_from_fov, orbit_camera, quat_multiply, quat_to_rotmat, rotmat_to_quat


def random_quats(count: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1)


def test_quaternions_and_matrices_agree_there_and_back():
    rotmats = quat_to_rotmat(random_quats(500))
    assert torch.allclose(quat_to_rotmat(rotmat_to_quat(rotmats)), rotmats, atol=1e-12)


def test_half_turns_survive_the_way_back():
    quats = torch.tensor([[0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0.6, 0.8, 0]], dtype=torch.float64)
    assert torch.allclose(quat_to_rotmat(rotmat_to_quat(quat_to_rotmat(quats))), quat_to_rotmat(quats), atol=1e-12)


def test_a_quaternion_product_is_a_matrix_product():
    a, b = random_quats(50), random_quats(50).flip(0)
    assert torch.allclose(quat_to_rotmat(quat_multiply(a, b)), quat_to_rotmat(a) @ quat_to_rotmat(b), atol=1e-12)


def test_a_rigid_motion_is_found_again():
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rotation, shift = quat_to_rotmat(random_quats(3)), torch.tensor([[1.0, 2, 3], [0, 0, 0], [-1, 0.5, 0]], dtype=torch.float64)
    moved = points @ rotation.transpose(-1, -2) + shift[:, None]
    found_rotation, found_shift = fit_rigid(points, moved)
    assert torch.allclose(found_rotation, rotation, atol=1e-9) and torch.allclose(found_shift, shift, atol=1e-9)


def test_a_rigid_fit_never_mirrors():
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rotation, _ = fit_rigid(points, points * torch.tensor([-1.0, 1, 1]))
    assert torch.linalg.det(rotation) == pytest.approx(1.0)


@pytest.mark.parametrize("yaw, pitch", [(0, 0), (90, 0), (-40, 25), (180, -80), (10, 90)])
def test_the_orbit_camera_looks_at_its_target_from_where_it_should_be(yaw, pitch):
    camera = orbit_camera(yaw, pitch, 0.8, 25.0, 320, 200, target=(0.01, 0.02, 0.03))
    rotation, shift = camera.viewmat[:3, :3], camera.viewmat[:3, 3]
    position = -rotation.T @ shift
    y, p = math.radians(yaw), math.radians(pitch)
    outward = torch.tensor([math.sin(y) * math.cos(p), math.sin(p), math.cos(y) * math.cos(p)])
    assert torch.allclose(position, torch.tensor([0.01, 0.02, 0.03]) + 0.8 * outward, atol=1e-5)
    target = rotation @ torch.tensor([0.01, 0.02, 0.03]) + shift
    assert torch.allclose(target, torch.tensor([0.0, 0.0, 0.8]), atol=1e-5)
    assert torch.linalg.det(rotation) == pytest.approx(1.0, abs=1e-5)


def test_up_in_the_world_is_up_in_the_picture():
    camera = orbit_camera(0, 0, 1.0, 30.0, 100, 100)
    above = camera.viewmat[:3, :3] @ torch.tensor([0.0, 0.1, 0.0]) + camera.viewmat[:3, 3]
    right = camera.viewmat[:3, :3] @ torch.tensor([0.1, 0.0, 0.0]) + camera.viewmat[:3, 3]
    assert above[1] < 0 and right[0] > 0


def test_the_vertical_field_of_view_spans_the_picture():
    K = intrinsics_from_fov(40.0, 640, 480)
    assert 2 * math.degrees(math.atan(240 / K[1, 1].item())) == pytest.approx(40.0)
    assert K[0, 0] == K[1, 1] and K[0, 2] == 320 and K[1, 2] == 240
