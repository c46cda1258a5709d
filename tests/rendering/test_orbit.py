"""The turntable camera."""

import math

import pytest
import torch

from avatar_viewer.rendering.orbit import DEGREES_PER_PIXEL, FARTHEST, MAX_PITCH, NEAREST, OrbitCamera


def project(camera: OrbitCamera, point, width=640, height=480):
    view = camera.camera(width, height)
    seen = view.viewmat[:3, :3] @ torch.tensor(point, dtype=torch.float32) + view.viewmat[:3, 3]
    pixel = view.K @ (seen / seen[2])
    return pixel[0].item(), pixel[1].item()


def test_a_full_turn_returns():
    camera, fresh = OrbitCamera(), OrbitCamera()
    for _ in range(8):
        camera.drag(45 / DEGREES_PER_PIXEL, 0)
    assert torch.allclose(camera.camera(100, 100).viewmat, fresh.camera(100, 100).viewmat, atol=1e-5)


def test_dragging_right_turns_the_front_of_the_head_right():
    camera = OrbitCamera()
    nose = (0.0, 0.0, 0.12)
    before = project(camera, nose)[0]
    camera.drag(40, 0)
    assert project(camera, nose)[0] > before


def test_dragging_down_shows_the_head_from_above_and_never_tips_over():
    camera = OrbitCamera()
    camera.drag(0, 50)
    assert camera.pitch_degrees > 0
    camera.drag(0, 1e6)
    assert camera.pitch_degrees == MAX_PITCH and torch.isfinite(camera.camera(10, 10).viewmat).all()


@pytest.mark.parametrize("yaw, pitch", [(0, 0), (70, 30), (-150, -60)])
def test_panning_keeps_the_point_under_the_hand(yaw, pitch):
    camera = OrbitCamera(yaw_degrees=yaw, pitch_degrees=pitch, target=(0.0, 0.0, 0.0))
    before = project(camera, (0.0, 0.0, 0.0))
    camera.pan(30, -20, 480)
    after = project(camera, (0.0, 0.0, 0.0))
    assert after[0] - before[0] == pytest.approx(30, abs=0.01) and after[1] - before[1] == pytest.approx(-20, abs=0.01)


def test_the_wheel_never_enters_the_head_nor_loses_it():
    camera = OrbitCamera()
    camera.zoom(1000)
    assert camera.distance == NEAREST
    camera.zoom(-1000)
    assert camera.distance == FARTHEST
    camera.reset()
    camera.zoom(1)
    camera.zoom(-1)
    assert camera.distance == pytest.approx(OrbitCamera().distance)


def test_reset_puts_the_camera_where_it_began():
    camera = OrbitCamera()
    camera.drag(33, 12), camera.pan(5, 6, 300), camera.zoom(3)
    camera.frame()
    assert camera.yaw_degrees != 0 and camera.distance == OrbitCamera().distance
    camera.reset()
    assert camera == OrbitCamera()


def test_the_field_of_view_is_vertical():
    view = OrbitCamera(fov_degrees=30).camera(900, 300)
    assert 2 * math.degrees(math.atan(150 / view.K[1, 1].item())) == pytest.approx(30)
