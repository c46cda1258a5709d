"""The rasteriser of studio pictures against values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avatar_viewer.studio.zbuffer import draw_triangles
from avatar_viewer.types import Camera


def _square(half: float, z: float, color: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    vertices = np.array([(-half, -half, z), (half, -half, z), (half, half, z), (-half, half, z)])
    return vertices, np.array([(0, 1, 2), (0, 2, 3)]), np.tile(color, (4, 1))


def _camera(size: int = 16) -> Camera:
    return Camera(torch.eye(4), torch.tensor([[16.0, 0, size / 2], [0, 16.0, size / 2], [0, 0, 1]]), size, size)


def test_a_square_covers_the_pixels_that_its_projection_covers():
    # Half a side of 0.25 m, 1 m away, focal length 16 px: 4 px to each side of the middle.
    color, alpha, depth = draw_triangles(*_square(0.25, 1.0, (0.2, 0.4, 0.6)), _camera(), supersampling=4)
    assert alpha.sum() == pytest.approx(64)
    assert np.allclose(alpha[4:12, 4:12], 1)
    assert np.allclose(color[8, 8], (0.2, 0.4, 0.6))
    assert depth[8, 8] == pytest.approx(1.0)
    assert depth[0, 0] == 0


def test_an_edge_through_the_middle_of_a_pixel_covers_half_of_it():
    half = 4.5 / 16
    _, alpha, _ = draw_triangles(*_square(half, 1.0, (1, 1, 1)), _camera(), supersampling=4)
    assert alpha[8, 3] == pytest.approx(0.5)
    assert alpha[3, 3] == pytest.approx(0.25)


def test_the_nearer_surface_hides_the_farther_one_whatever_the_order():
    near, far = _square(0.1, 1.0, (1, 0, 0)), _square(0.5, 2.0, (0, 0, 1))
    for first, second in ((near, far), (far, near)):
        vertices = np.concatenate((first[0], second[0]))
        faces = np.concatenate((first[1], second[1] + 4))
        color, _, depth = draw_triangles(vertices, faces, np.concatenate((first[2], second[2])), _camera())
        assert np.allclose(color[8, 8], (1, 0, 0))
        assert depth[8, 8] == pytest.approx(1.0)
        assert np.allclose(color[8, 5], (0, 0, 1))


def test_colours_are_interpolated_in_perspective():
    # A ramp that recedes: halfway along it in space lies at z = 2, which is seen nearer to the far end.
    vertices = np.array([(-1.0, -1, 1), (-1, 1, 1), (1.0, -1, 3), (1, 1, 3)])
    colors = np.array([(0.0, 0, 0), (0, 0, 0), (1, 1, 1), (1, 1, 1)])
    camera = Camera(torch.eye(4), torch.tensor([[64.0, 0, 64], [0, 64.0, 64], [0, 0, 1]]), 128, 128)
    color, _, depth = draw_triangles(vertices, np.array([(0, 1, 2), (1, 3, 2)]), colors, camera)
    assert depth[64, 64] == pytest.approx(2.0, abs=0.05)
    assert color[64, 64, 0] == pytest.approx(0.5, abs=0.02)
