"""The avatar's side of the contact sheet: what a slider asks for in silence is what is drawn."""

from __future__ import annotations

import numpy as np
import torch

from avatar_viewer.action_units import AU_NAMES
from avatar_viewer.avatar.animation import Animator
from avatar_viewer.avatar.bundle import Avatar
from avatar_viewer.metrics.avatar_sheet import draw_avatar, settle
from avatar_viewer.studio.contact_sheet import VIEWS
from avatar_viewer.studio.poses import coefficients


def test_a_settled_face_follows_its_slider_and_gaze(tiny_avatar: Avatar):
    animator = Animator(tiny_avatar)
    rest = settle(tiny_avatar, animator, coefficients({}))
    raised = settle(tiny_avatar, animator, coefficients({"AU12": 5.0}))
    again = settle(tiny_avatar, animator, coefficients({}))
    assert torch.equal(rest.means, again.means)
    assert not torch.equal(rest.means, raised.means)
    looking = settle(tiny_avatar, animator, coefficients({"gaze_yaw": 0.4}))
    moved = (looking.means - rest.means).norm(dim=1) > 1e-6
    assert moved.any() and not moved[: tiny_avatar.rig.num_face].any()


def test_the_picture_is_of_the_camera_and_shows_the_head(tiny_avatar: Avatar):
    draw = draw_avatar(tiny_avatar)
    camera = VIEWS["front"]
    for name in AU_NAMES[:2]:
        picture = draw(coefficients({name: 3.0}), camera)
        assert picture.shape == (camera.height, camera.width, 3) and picture.dtype == np.uint8
        assert (picture < 250).any() and (picture > 250).any()
