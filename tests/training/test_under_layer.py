"""The dark layer beneath the face."""

import torch

from avatar_viewer.geometry import quat_to_rotmat
from avatar_viewer.training.under_layer import make_under_layer, mean_edge_length, vertex_normals


def test_the_layer_lies_inside_the_skin_and_faces_as_it_does(tiny_face):
    layer = make_under_layer(tiny_face.neutral, tiny_face.faces, torch.full_like(tiny_face.neutral, 0.8), depth=0.0012)
    normals = vertex_normals(tiny_face.neutral, tiny_face.faces)
    assert (normals[:, 2] > 0).all()  # the face looks towards +z
    torch.testing.assert_close((tiny_face.neutral - layer.means).norm(dim=-1), torch.full((210,), 0.0012))
    assert (layer.means[:, 2] < tiny_face.neutral[:, 2]).all()
    torch.testing.assert_close(quat_to_rotmat(layer.quats)[..., 2], normals, atol=1e-5, rtol=0)
    assert (layer.log_scales[:, 2] < layer.log_scales[:, 0]).all()
    assert (layer.colors < 0.55 * 0.8).all() and (layer.colors[:, 1:] < 0.3).all()  # dark, and red rather than grey


def test_each_row_rides_on_its_own_vertex_alone(tiny_face):
    layer = make_under_layer(tiny_face.neutral, tiny_face.faces, tiny_face.neutral.abs())
    offsets = torch.randn(210, 3)
    assert torch.equal((offsets[layer.binding_vertices] * layer.binding_weights[..., None]).sum(1), offsets)


def test_edge_lengths_of_a_right_triangle():
    corners = torch.tensor([[0.0, 0, 0], [3.0, 0, 0], [0, 4.0, 0]])
    assert mean_edge_length(corners, torch.tensor([[0, 1, 2]])).tolist() == [3.5, 4.0, 4.5]
