"""Equations 19 to 22, each on a case worked by hand."""

import pytest
import torch

from avatar_viewer.training.losses import (
    feature_line_loss,
    offset_limit_loss,
    opacity_motion_loss,
    picture_loss,
    sparse_opacity_loss,
    still_opacity_loss,
)

OFFSETS = torch.tensor([[0.003, 0.0, 0.004], [0.0, 0.0, 0.0005]])  # 5 mm and 0.5 mm


def test_eq_19_adds_sparseness_and_smoothness_between_neighbouring_units():
    values = torch.tensor([[[1.0, -1.0]], [[2.0, 0.0]], [[2.0, 4.0]]])  # [3, 1, 2]
    # mean |F| = 10 / 6; differences (1, 1) and (0, 4): squares 1 + 1 + 0 + 16 over 4
    assert feature_line_loss(values).item() == pytest.approx(0.01 * 10 / 6 + 0.001 * 18 / 4)


def test_eq_20_is_l1_where_ssim_has_no_weight_and_zero_for_equal_pictures():
    image, truth = torch.full((16, 16, 3), 0.5), torch.full((16, 16, 3), 0.25)
    assert picture_loss(image, truth, ssim_weight=0.0).item() == pytest.approx(0.25)
    assert picture_loss(image, image).item() == pytest.approx(0.0, abs=1e-6)


def test_eq_20_mixes_l1_with_one_minus_ssim():
    image, truth = torch.rand(16, 16, 3), torch.rand(16, 16, 3)
    whole = picture_loss(image, truth, ssim_weight=1.0)
    expected = 0.8 * (image - truth).abs().mean() + 0.2 * whole
    torch.testing.assert_close(picture_loss(image, truth), expected)
    assert 0 < whole < 2


def test_eq_21_is_zero_where_opacity_follows_motion_and_squared_elsewhere():
    # gamma 2 mm a unit: 5 mm ask for 2.5 units, 0.5 mm for 0.25
    assert opacity_motion_loss(OFFSETS, torch.tensor([-2.5, 0.25]), 2.0).item() == pytest.approx(0, abs=1e-9)
    # misses of 5 - 2 = 3 mm and 0.5 - 0 = 0.5 mm
    assert opacity_motion_loss(OFFSETS, torch.tensor([1.0, 0.0]), 2.0).item() == pytest.approx(0.01 * (9 + 0.25) / 2)


def test_eq_22_caps_each_offset_at_tau():
    assert offset_limit_loss(OFFSETS).item() == pytest.approx(0.01 * (1.0 + 0.5) / 2)


def test_opacity_of_still_skin_is_held_and_that_of_moving_skin_is_free():
    change = torch.tensor([3.0, -0.4], requires_grad=True)
    loss = still_opacity_loss(OFFSETS, change)
    assert loss.item() == pytest.approx(0.01 * 0.4 / 2)
    loss.backward()
    assert change.grad.tolist() == pytest.approx([0.0, -0.01 / 2])


def test_each_change_of_opacity_costs_alike_whichever_way():
    change = torch.tensor([3.0, -1.0, 0.0, 0.0], requires_grad=True)
    loss = sparse_opacity_loss(change, weight=0.1)
    assert loss.item() == pytest.approx(0.1 * 4 / 4)
    loss.backward()
    assert change.grad.tolist() == pytest.approx([0.025, -0.025, 0.0, 0.0])
