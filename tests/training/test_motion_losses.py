"""Equations 12 to 17 on cases worked by hand, and their latent forms against the vertex forms."""

import pytest
import torch

from avatar_viewer.training.latent_geometry import GeometryWeights, geometry_loss, offset_grams
from avatar_viewer.training.losses import (
    acceleration_loss,
    deform_loss,
    lip_loss,
    motion_loss,
    uniform_laplacian,
    velocity_loss,
    vertex_loss,
)


def one_vertex_moves(track):
    """[T, 2, 3] mm: vertex 0 along x by `track`, vertex 1 still."""
    offsets = torch.zeros(len(track), 2, 3)
    offsets[:, 0, 0] = torch.tensor(track)
    return offsets


def test_vertex_velocity_and_acceleration_by_hand():
    truth = one_vertex_moves([0.0, 0.0, 0.0, 0.0])
    predicted = one_vertex_moves([0.0, 1.0, 3.0, 3.0])
    assert vertex_loss(predicted, truth) == pytest.approx((0 + 1 + 9 + 9) / (4 * 2))
    assert velocity_loss(predicted, truth) == pytest.approx((1 + 4 + 0) / (3 * 2))
    assert acceleration_loss(predicted, truth) == pytest.approx((1 + 4) / (2 * 2))
    assert motion_loss(predicted, truth) == pytest.approx(5 / 6 + 5 / 4)


def test_lip_loss_counts_lip_vertices_of_lip_frames():
    truth, predicted = one_vertex_moves([0.0, 0.0, 0.0]), one_vertex_moves([5.0, 1.0, 2.0])
    both, first = torch.tensor([0, 1]), torch.tensor([0])
    frames = torch.tensor([0.0, 1.0, 1.0])
    assert lip_loss(predicted, truth, first, frames) == pytest.approx((1 + 4) / 2)
    assert lip_loss(predicted, truth, both, frames) == pytest.approx((1 + 4) / 4)
    assert lip_loss(predicted, truth, both, torch.zeros(3)) == 0


def test_the_laplacian_and_the_deformation_term_by_hand():
    laplacian = uniform_laplacian(torch.tensor([[0, 1, 2]]), 4)
    expected = torch.tensor([[1, -0.5, -0.5, 0], [-0.5, 1, -0.5, 0], [-0.5, -0.5, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(laplacian.to_dense(), expected)
    assert deform_loss(torch.ones(4, 3), laplacian) == 0
    bump = torch.zeros(4, 3)
    bump[0, 1] = 2.0  # Laplacian 2, -1, -1
    assert deform_loss(bump, laplacian) == pytest.approx((4 + 1 + 1) / 4)


@pytest.fixture()
def case():
    torch.manual_seed(0)
    faces = torch.tensor([[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]])
    basis = torch.randn(3, 6, 3)
    predicted, truth = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    lips, laplacian = torch.tensor([1, 3, 4]), uniform_laplacian(faces, 6)
    vertices = [torch.einsum("btk,kvc->btvc", z, basis) for z in (predicted, truth)]
    return basis, predicted, truth, lips, laplacian, vertices


def test_the_latent_forms_equal_the_vertex_forms(case):
    basis, predicted, truth, lips, laplacian, (x, y) = case
    frames = (torch.rand(2, 5) > 0.4).float()
    total, parts = geometry_loss(predicted, truth, offset_grams(basis, lips, laplacian), frames)
    expected = {
        "vertex": vertex_loss(x, y),
        "velocity": velocity_loss(x, y),
        "acceleration": acceleration_loss(x, y),
        "lip": lip_loss(x, y, lips, frames),
        "deform": torch.stack([deform_loss(frame, laplacian) for frame in x.flatten(0, 1)]).mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5)
    by_hand = expected["vertex"] + 0.5 * motion_loss(x, y) + 0.1 * expected["deform"] + 0.8 * expected["lip"]
    torch.testing.assert_close(total, by_hand, rtol=1e-4, atol=1e-5)


def test_truncated_frames_do_not_count(case):
    basis, predicted, truth, lips, laplacian, _ = case
    grams, frames = offset_grams(basis, lips, laplacian), torch.ones(2, 5)
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[:, 3:] = False
    cut, _ = geometry_loss(predicted, truth, grams, frames, valid=valid)
    short, _ = geometry_loss(predicted[:, :3], truth[:, :3], grams, frames[:, :3])
    torch.testing.assert_close(cut, short)


def test_the_seam_counts_as_two_more_frames_of_error(case):
    basis, predicted, truth, lips, laplacian, _ = case
    grams, frames = offset_grams(basis, lips, laplacian), torch.ones(2, 5)
    error = predicted - truth
    seen = geometry_loss(predicted[:, 2:], truth[:, 2:], grams, frames[:, 2:], before=error[:, :2])[1]
    whole = geometry_loss(predicted, truth, grams, frames)[1]
    torch.testing.assert_close(seen["velocity"], whole["velocity"])
    torch.testing.assert_close(seen["acceleration"], whole["acceleration"])
    none = geometry_loss(
        predicted[:, 2:], truth[:, 2:], grams, frames[:, 2:], before=error[:, :2], has_before=torch.zeros(2, dtype=torch.bool)
    )[1]
    alone = geometry_loss(predicted[:, 2:], truth[:, 2:], grams, frames[:, 2:])[1]
    torch.testing.assert_close(none["velocity"], alone["velocity"])
    torch.testing.assert_close(none["acceleration"], alone["acceleration"])


def test_weights_are_the_papers():
    weights = GeometryWeights()
    assert (weights.vertex, weights.motion, weights.deform, weights.lip) == (1.0, 0.5, 0.1, 0.8)
