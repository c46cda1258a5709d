"""Rig + motion + edit -> Gaussians."""

from dataclasses import replace

import pytest
import torch

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.avatar.animation import Animator, compose_frame, edited_codes, pose_gaussians
from avatar_viewer.avatar.skinning import build_skin, turn_skin
from avatar_viewer.geometry import quat_multiply
from avatar_viewer.types import AUEdit, MotionFrame


def still(avatar) -> MotionFrame:
    return MotionFrame(0.0, torch.zeros(17), torch.zeros(17), 0.0, torch.zeros_like(avatar.face.neutral), torch.zeros(2))


def talking(avatar, seconds: float = 0.4) -> MotionFrame:
    generator = torch.Generator().manual_seed(2)
    codes = 3 * torch.rand(17, generator=generator)
    x, y, _ = avatar.face.neutral.unbind(-1)
    offsets = 0.004 * torch.stack((torch.sin(20 * y), torch.cos(25 * x), torch.sin(15 * (x + y))), dim=-1)
    return MotionFrame(seconds, codes, codes, 0.7, offsets, torch.tensor([0.1, 0.05]))


def pull(name: str, amount: float) -> AUEdit:
    offset = torch.zeros(17)
    offset[AU_NAMES.index(name)] = amount
    return AUEdit(offset=offset)


def test_no_motion_and_no_codes_give_the_rig_back_to_the_last_bit(tiny_avatar):
    frame, rig = pose_gaussians(tiny_avatar, still(tiny_avatar), AUEdit()), tiny_avatar.rig
    assert torch.equal(frame.means, rig.means)
    assert torch.equal(frame.quats, rig.quats)
    assert torch.equal(frame.scales, rig.log_scales.exp())
    assert torch.equal(frame.opacities, torch.sigmoid(rig.opacity_logits))
    assert torch.equal(frame.colors, rig.colors)


def test_colour_and_scale_never_change(tiny_avatar):
    frame = pose_gaussians(tiny_avatar, talking(tiny_avatar), pull("AU12", 4.0))
    assert torch.equal(frame.colors, tiny_avatar.rig.colors)
    assert torch.equal(frame.scales, tiny_avatar.rig.log_scales.exp())


def test_the_face_is_where_the_offsets_say_and_turned_as_skin_and_rotnet_say(tiny_avatar):
    motion, rig = talking(tiny_avatar), tiny_avatar.rig
    frame, count = pose_gaussians(tiny_avatar, motion, AUEdit()), tiny_avatar.rig.num_face
    assert torch.equal(frame.means[:count], rig.means[:count] + motion.offsets)
    change = tiny_avatar.appearance(rig.quats[:count], motion.au_codes, rig.means[:count], motion.offsets)
    turn = turn_skin(build_skin(rig, tiny_avatar.face), motion.offsets)
    torch.testing.assert_close(frame.quats[:count], quat_multiply(change.quats, quat_multiply(turn, rig.quats[:count])))
    torch.testing.assert_close(frame.opacities[:count], torch.sigmoid(rig.opacity_logits[:count] + change.opacity_logits))
    assert (change.quats[:, 0] < 0.9999).any() and (change.opacity_logits.abs() > 0.05).any()


def test_opacity_and_rotation_follow_the_edited_codes_and_the_rest_of_the_head_does_not(tiny_avatar):
    motion, count = talking(tiny_avatar), tiny_avatar.rig.num_face
    plain = pose_gaussians(tiny_avatar, motion, AUEdit())
    edited = pose_gaussians(tiny_avatar, motion, pull("AU04", 3.0))
    assert (plain.opacities[:count] != edited.opacities[:count]).any()
    assert torch.equal(plain.opacities[count:], edited.opacities[count:])


def test_an_edit_shows_at_once_by_the_difference_of_responses(tiny_avatar):
    motion, count = talking(tiny_avatar), tiny_avatar.rig.num_face
    edit = pull("AU12", 1.5)
    frame = pose_gaussians(tiny_avatar, motion, edit)
    wanted = tiny_avatar.denoiser.response(edited_codes(motion, edit)) - tiny_avatar.denoiser.response(motion.au_applied)
    assert wanted.abs().max() > 1e-4
    torch.testing.assert_close(frame.means[:count], tiny_avatar.rig.means[:count] + motion.offsets + wanted)


def test_an_edit_that_the_offsets_already_contain_is_not_counted_twice(tiny_avatar):
    motion, edit, count = talking(tiny_avatar), pull("AU12", 1.5), tiny_avatar.rig.num_face
    applied = replace(motion, au_applied=edited_codes(motion, edit))
    frame = pose_gaussians(tiny_avatar, applied, edit)
    assert torch.equal(frame.means[:count], tiny_avatar.rig.means[:count] + motion.offsets)


def test_a_kept_animator_says_what_a_fresh_one_says_at_every_motion_frame(tiny_avatar):
    animator = Animator(tiny_avatar)
    for index, edit in enumerate((AUEdit(), AUEdit(), pull("AU26", 2.0), pull("AU26", 2.0))):
        motion = replace(talking(tiny_avatar), seconds=index / 25)
        kept, fresh = animator.pose(motion, edit), pose_gaussians(tiny_avatar, motion, edit)
        for name in ("means", "quats", "opacities"):
            assert torch.equal(getattr(kept, name), getattr(fresh, name)), (index, name)


def test_between_motion_frames_appearance_is_kept_until_an_edit_moves_it(tiny_avatar, monkeypatch):
    animator, runs = Animator(tiny_avatar), []
    forward = tiny_avatar.appearance.forward
    monkeypatch.setattr(tiny_avatar.appearance, "forward", lambda *args: runs.append(1) or forward(*args))
    for step in range(4):  # one motion frame of 40 ms, shown four times
        animator.pose(talking(tiny_avatar, 0.4 + 0.01 * step), AUEdit())
    assert len(runs) == 1
    animator.pose(talking(tiny_avatar, 0.43), pull("AU01", 1.0))
    assert len(runs) == 2
    animator.pose(talking(tiny_avatar, 0.44), pull("AU01", 1.0))
    assert len(runs) == 3
    animator.reset()
    animator.pose(talking(tiny_avatar, 0.44), pull("AU01", 1.0))
    assert len(runs) == 4


def test_a_frame_handed_out_is_not_written_again(tiny_avatar):
    animator = Animator(tiny_avatar)
    first = animator.pose(talking(tiny_avatar), AUEdit())
    copies = [getattr(first, name).clone() for name in ("means", "quats", "scales", "opacities", "colors")]
    animator.pose(still(tiny_avatar), pull("AU26", 5.0))
    for name, copy in zip(("means", "quats", "scales", "opacities", "colors"), copies):
        assert torch.equal(getattr(first, name), copy), name


def test_training_sees_gradients_through_opacity_and_rotation_of_the_composed_frame(tiny_avatar):
    rig, motion, count = tiny_avatar.rig, talking(tiny_avatar), tiny_avatar.rig.num_face
    logits = torch.zeros(count, requires_grad=True)
    change = replace(
        tiny_avatar.appearance(rig.quats[:count], motion.au_codes, rig.means[:count], motion.offsets), opacity_logits=logits
    )
    frame = compose_frame(rig, build_skin(rig, tiny_avatar.face), motion.offsets, motion.gaze, change)
    frame.opacities.sum().backward()
    assert (logits.grad > 0).all()


@pytest.mark.parametrize("size", [8500])
def test_posing_a_head_of_full_size_takes_milliseconds(tiny_avatar, size):
    """A guard against a slip of a whole order; `avatar-viewer bench render` has the number."""
    import time

    from avatar_viewer.networks.appearance import AppearanceConfig, AppearanceDecoder

    decoder, rest = AppearanceDecoder(AppearanceConfig(size)), torch.randn(size, 3)
    quats = torch.nn.functional.normalize(torch.randn(size, 4), dim=-1)
    with torch.inference_mode():
        at_rest = decoder.rest(quats, rest)
        began = time.process_time()
        for _ in range(10):
            decoder(quats, torch.rand(17), rest, torch.zeros_like(rest), at_rest)
    assert (time.process_time() - began) / 10 < 0.05
