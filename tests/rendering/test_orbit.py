"""The turntable camera: what a mouse does, and what it may not do."""

import numpy as np
import pytest
import torch

from avatar_viewer.rendering.orbit import CLEARANCE, FARTHEST, MAX_PITCH, MAX_TARGET, OrbitCamera


def eye(orbit: OrbitCamera) -> np.ndarray:
    viewmat = orbit.camera(64, 64).viewmat.double().numpy()
    return -viewmat[:3, :3].T @ viewmat[:3, 3]


def pixel(orbit: OrbitCamera, point, size: int = 400) -> np.ndarray:
    camera = orbit.camera(size, size)
    x, y, z = (camera.viewmat[:3, :3] @ torch.tensor(point) + camera.viewmat[:3, 3]).tolist()
    return np.array([camera.K[0, 0] * x / z + camera.K[0, 2], camera.K[1, 1] * y / z + camera.K[1, 2]])


def test_the_default_view_shows_the_whole_head_and_more_below():
    orbit = OrbitCamera()
    top, bottom = pixel(orbit, (0.0, 0.13, 0.0)), pixel(orbit, (0.0, -0.13, 0.0))
    assert 10 < top[1] < 120 and 230 < bottom[1] < 340
    assert top[0] == pytest.approx(200, abs=1e-3)


def test_dragging_right_turns_the_head_to_the_right():
    orbit = OrbitCamera()
    before = pixel(orbit, (0.0, 0.0, 0.1))
    orbit.drag(40, 0)
    assert orbit.yaw_degrees == pytest.approx(-14)
    assert pixel(orbit, (0.0, 0.0, 0.1))[0] > before[0] + 5


def test_dragging_down_shows_the_crown():
    orbit = OrbitCamera()
    orbit.drag(0, 40)
    assert orbit.pitch_degrees == pytest.approx(14)
    assert eye(orbit)[1] > 0.1


def test_pitch_stops_before_the_pole_and_yaw_wraps():
    orbit = OrbitCamera()
    orbit.drag(0, 10_000)
    assert orbit.pitch_degrees == MAX_PITCH
    orbit.drag(-600, 0)  # 210 degrees
    assert orbit.yaw_degrees == pytest.approx(-150)


def test_a_panned_point_stays_under_the_mouse():
    orbit = OrbitCamera(yaw_degrees=30, pitch_degrees=20)
    held = orbit.target
    orbit.pan(25, -10, 400)
    assert pixel(orbit, held) == pytest.approx([225, 190], abs=0.2)


def test_panning_cannot_lose_the_head():
    orbit = OrbitCamera()
    orbit.pan(1e6, 3e5, 400)
    assert max(abs(t) for t in orbit.target) <= MAX_TARGET


@pytest.mark.parametrize("seed", range(12))
def test_no_sequence_of_moves_brings_the_camera_into_the_head(seed):
    generator = np.random.default_rng(seed)
    orbit = OrbitCamera()
    for _ in range(60):
        move = generator.integers(4)
        a, b = (generator.normal(size=2) * 300).tolist()
        if move == 0:
            orbit.drag(a, b)
        elif move == 1:
            orbit.pan(a, b, 400)
        else:
            orbit.zoom(abs(a) / 20 if move == 2 else b / 50)
        assert np.linalg.norm(eye(orbit)) >= CLEARANCE - 1e-5
        assert 0 < orbit.distance <= FARTHEST


def test_zooming_in_and_out_again_comes_back():
    orbit = OrbitCamera()
    orbit.zoom(3)
    assert orbit.distance == pytest.approx(1.0 / 1.12**3)
    orbit.zoom(-3)
    assert orbit.distance == pytest.approx(1.0)


def test_framing_keeps_the_direction_and_brings_the_head_back():
    orbit = OrbitCamera()
    orbit.drag(50, 10)
    orbit.pan(100, 100, 400)
    orbit.zoom(-10)
    orbit.frame()
    assert (orbit.distance, orbit.target) == (1.0, (0.0, -0.02, 0.0))
    assert orbit.yaw_degrees == pytest.approx(-17.5)


def test_reset_comes_home():
    orbit = OrbitCamera()
    orbit.drag(50, 60)
    orbit.zoom(2)
    orbit.reset()
    assert orbit == OrbitCamera()
