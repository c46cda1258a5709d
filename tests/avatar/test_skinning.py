"""How a moved face carries the head."""

import math

import torch

from avatar_viewer.avatar.binding import carry, group_transforms
from avatar_viewer.avatar.skinning import build_skin, place_gaussians, turn_skin
from avatar_viewer.geometry import quat_multiply, quat_to_rotmat, rotmat_to_quat

UNIT = torch.tensor([1.0, 0.0, 0.0, 0.0])


def rotation_about_x(degrees: float) -> torch.Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def carry_rest(rig, face, offsets, gaze) -> tuple[torch.Tensor, torch.Tensor]:
    means, quats = place_gaussians(build_skin(rig, face), rig, offsets, gaze, rig.quats[: rig.num_face])
    return means[rig.num_face :], quats[rig.num_face :]


def smooth_motion(face) -> torch.Tensor:
    x, y, z = face.neutral.unbind(-1)
    return 0.004 * torch.stack((torch.sin(20 * y), torch.cos(15 * x + 3 * z), torch.sin(10 * x * y + y)), dim=-1)


def test_skin_that_does_not_move_does_not_turn(tiny_rig, tiny_face):
    turn = turn_skin(build_skin(tiny_rig, tiny_face), torch.zeros_like(tiny_face.neutral))
    assert torch.equal(turn, UNIT.expand(len(turn), 4))


def test_a_rigid_motion_turns_every_vertex_exactly_so(tiny_rig, tiny_face):
    for degrees in (5, -40, 85):
        rotation = rotation_about_x(degrees)
        offsets = tiny_face.neutral @ rotation.T + torch.tensor([0.01, -0.02, 0.03]) - tiny_face.neutral
        turn = quat_to_rotmat(turn_skin(build_skin(tiny_rig, tiny_face), offsets))
        torch.testing.assert_close(turn, rotation.expand_as(turn), atol=1e-4, rtol=0)


def test_a_dent_turns_only_the_skin_around_it(tiny_rig, tiny_face):
    offsets = torch.zeros_like(tiny_face.neutral)
    offsets[100, 2] = 0.004
    turned = (turn_skin(build_skin(tiny_rig, tiny_face), offsets) - UNIT).abs().sum(-1) > 1e-6
    neighbours = (tiny_face.faces == 100).any(dim=1)
    around = torch.zeros(len(turned), dtype=torch.bool)
    around[tiny_face.faces[neighbours].flatten()] = True
    assert turned.any() and not (turned & ~around).any()


def test_collapsed_skin_gives_finite_unit_rotations(tiny_rig, tiny_face):
    turn = turn_skin(build_skin(tiny_rig, tiny_face), -tiny_face.neutral)
    torch.testing.assert_close(turn.norm(dim=-1), torch.ones(len(turn)))


def test_the_tables_carry_the_rest_as_binding_says(tiny_rig, tiny_face):
    offsets, gaze = smooth_motion(tiny_face), torch.tensor([0.2, -0.1])
    count = tiny_rig.num_face
    transforms = group_transforms(tiny_rig.groups, tiny_face.neutral, tiny_face.neutral + offsets, tiny_face.regions["jaw"], gaze)
    expected = carry(
        tiny_rig.means[count:], tiny_rig.quats[count:], tiny_rig.binding_vertices, tiny_rig.binding_weights,
        tiny_rig.group_ids, transforms, offsets,
    )  # fmt: skip
    means, quats = carry_rest(tiny_rig, tiny_face, offsets, gaze)
    torch.testing.assert_close(means, expected[0])
    torch.testing.assert_close(quats, expected[1])


def test_lower_teeth_follow_a_falling_jaw_and_eyes_do_not(tiny_rig, tiny_face):
    jaw, offsets = tiny_face.regions["jaw"], torch.zeros_like(tiny_face.neutral)
    rotation = rotation_about_x(12)
    offsets[jaw] = tiny_face.neutral[jaw] @ rotation.T - tiny_face.neutral[jaw]
    means, quats = carry_rest(tiny_rig, tiny_face, offsets, torch.zeros(2))
    rest, teeth, eyes = tiny_rig.means[tiny_rig.num_face :], tiny_rig.group_ids == 2, tiny_rig.group_ids < 2
    torch.testing.assert_close(means[teeth], rest[teeth] @ rotation.T, atol=1e-6, rtol=0)
    turned = quat_multiply(rotmat_to_quat(rotation).expand(20, 4), tiny_rig.quats[tiny_rig.num_face :][teeth])
    torch.testing.assert_close(quats[teeth], turned, atol=1e-5, rtol=0)
    assert torch.equal(means[eyes & (tiny_rig.group_ids >= 0)], rest[eyes & (tiny_rig.group_ids >= 0)])


def test_a_gaze_to_plus_x_moves_the_pupil_to_plus_x_about_the_pivot(tiny_rig, tiny_face):
    means, _ = carry_rest(tiny_rig, tiny_face, torch.zeros_like(tiny_face.neutral), torch.tensor([0.3, 0.0]))
    rest, pivot = tiny_rig.means[tiny_rig.num_face :], torch.tensor(tiny_rig.groups[0].pivot)
    front = (rest[:20, 2] - pivot[2]).argmax()
    assert means[front, 0] > rest[front, 0]
    torch.testing.assert_close((means[:20] - pivot).norm(dim=-1), (rest[:20] - pivot).norm(dim=-1))
